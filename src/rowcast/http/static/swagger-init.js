// Swagger UI without inline script. The script element names the document, relative to the page, so that it is found
// behind any path prefix:  <div id="swagger-ui"></div>  <script src="…/swagger-init.js" data-openapi="openapi.json">
// A server with keys shows of its models what the key may use: the document is read again whenever the key changes.
"use strict";
(() => {
  const address = document.currentScript.dataset.openapi || "openapi.json";
  let key = "";
  const rereading = (chosen) => (original, { specActions }) => (payload) => {
    const done = original(payload);
    key = chosen(payload);
    specActions.download();
    return done;
  };
  const authorize = rereading((schemes) => Object.values(schemes)[0].value);
  const logout = rereading(() => "");
  window.ui = SwaggerUIBundle({
    url: new URL(address, document.baseURI).href,
    dom_id: "#swagger-ui",
    deepLinking: true,
    layout: "BaseLayout",
    presets: [SwaggerUIBundle.presets.apis],
    tryItOutEnabled: true,
    plugins: [{ statePlugins: { auth: { wrapActions: { authorize, logout } } } }],
    requestInterceptor: (request) => {
      if (request.loadSpec && key) request.headers["x-api-key"] = key;
      return request;
    },
    // No request leaves for the public validator.
    validatorUrl: null,
  });
})();
