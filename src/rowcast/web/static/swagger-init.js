// Swagger UI without inline script. The script element names the document, relative to the page, so that it is found
// behind any path prefix:  <div id="swagger-ui"></div>  <script src="…/swagger-init.js" data-openapi="openapi.json">
"use strict";
(() => {
  const address = document.currentScript.dataset.openapi || "openapi.json";
  window.ui = SwaggerUIBundle({
    url: new URL(address, document.baseURI).href,
    dom_id: "#swagger-ui",
    deepLinking: true,
    layout: "BaseLayout",
    presets: [SwaggerUIBundle.presets.apis],
    tryItOutEnabled: true,
    // No request leaves for the public validator.
    validatorUrl: null,
  });
})();
