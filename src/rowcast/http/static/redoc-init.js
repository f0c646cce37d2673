// ReDoc without inline script. The script element names the document, relative to the page, so that it is found
// behind any path prefix:  <div id="redoc"></div>  <script src="…/redoc-init.js" data-openapi="openapi.json">
"use strict";
(() => {
  const address = document.currentScript.dataset.openapi || "openapi.json";
  // ReDoc's footer asks its maker's host for a logo, and no option says no. The page's policy blocks the request, with
  // an error in the console; an image that cannot be drawn is taken away by ReDoc itself without asking anybody.
  const create = document.createElement.bind(document);
  document.createElement = (...given) => {
    const made = create(...given);
    if (made instanceof HTMLImageElement) {
      const set = made.setAttribute.bind(made);
      made.setAttribute = (name, value) => set(name, name === "src" ? "data:," : value);
      Object.defineProperty(made, "src", { set: () => set("src", "data:,") });
    }
    return made;
  };
  // The search index is built in a worker made from a blob, which the page's policy does not allow.
  const options = { disableSearch: true, hideLogo: true, nativeScrollbars: true };
  Redoc.init(new URL(address, document.baseURI).href, options, document.getElementById("redoc"));
})();
