// Start Swagger UI without an inline script. The document's URL is relative to the page, so that the page also
// works behind a path prefix:  <div id="swagger-ui"></div>  <script src="…/swagger-init.js" data-openapi="openapi.json">
// If keys exist, the document describes only the models that the caller can use, so it is reloaded when the key changes.
"use strict";
(() => {
  const address = document.currentScript.dataset.openapi || "openapi.json";
  let key = "";
  const reloadWithKey = (keyOf) => (original, { specActions }) => (payload) => {
    const result = original(payload);
    key = keyOf(payload);
    specActions.download();
    return result;
  };
  const authorize = reloadWithKey((schemes) => Object.values(schemes)[0].value);
  const logout = reloadWithKey(() => "");
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
    // Do not send the document to the public validator.
    validatorUrl: null,
  });
})();
