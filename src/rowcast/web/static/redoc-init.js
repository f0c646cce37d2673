// ReDoc without inline script. The script element names the document, relative to the page, so that it is found
// behind any path prefix:  <div id="redoc"></div>  <script src="…/redoc-init.js" data-openapi="openapi.json">
"use strict";
(() => {
  const address = document.currentScript.dataset.openapi || "openapi.json";
  // The search index is built in a worker made from a blob, which the page's policy does not allow.
  const options = { disableSearch: true, hideLogo: true, nativeScrollbars: true };
  Redoc.init(new URL(address, document.baseURI).href, options, document.getElementById("redoc"));
})();
