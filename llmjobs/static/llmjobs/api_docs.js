// Starts Swagger UI on the page of the API's docs. A file of its own, because the page allows no inline script.

const root = document.getElementById("swagger-ui");
const { schemaUrl, csrfToken } = root.dataset;
const safeMethods = ["GET", "HEAD", "OPTIONS"];
const isDark = matchMedia("(prefers-color-scheme: dark)");

/** Swagger UI has colours for the night, behind a class; the reader's system says which are wanted. */
function showColours() {
  document.documentElement.classList.toggle("dark-mode", isDark.matches);
}

isDark.addEventListener("change", showColours);
showColours();

SwaggerUIBundle({
  domNode: root,
  url: schemaUrl,
  deepLinking: true,
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
  validatorUrl: null, // its default is a server of swagger.io
  requestInterceptor: (request) => {
    // For who tries it out with the session instead of a key.
    if (!safeMethods.includes((request.method || "GET").toUpperCase())) {
      request.headers["X-CSRFToken"] = csrfToken;
    }
    return request;
  },
});
