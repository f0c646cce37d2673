// Start ReDoc without an inline script. The document's URL is relative to the page, so that the page also works
// behind a path prefix:  <div id="redoc"></div>  <script src="…/redoc-init.js" data-openapi="openapi.json">
"use strict";
(() => {
  const address = document.currentScript.dataset.openapi || "openapi.json";
  // ReDoc's footer loads a logo from an external host, and no option prevents this. The page's content security policy
  // blocks the request, but the browser logs an error. If the image is invalid, ReDoc hides the logo without an error.
  const create = document.createElement.bind(document);
  document.createElement = (...args) => {
    const element = create(...args);
    if (element instanceof HTMLImageElement) {
      const set = element.setAttribute.bind(element);
      element.setAttribute = (name, value) => set(name, name === "src" ? "data:," : value);
      Object.defineProperty(element, "src", { set: () => set("src", "data:,") });
    }
    return element;
  };
  // The search runs in a worker created from a blob, which the content security policy does not allow.
  const options = { disableSearch: true, hideLogo: true, nativeScrollbars: true };
  Redoc.init(new URL(address, document.baseURI).href, options, document.getElementById("redoc"));
})();
