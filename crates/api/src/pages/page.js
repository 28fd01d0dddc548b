"use strict";

(() => {
  // This file lies in docs/ below the API's address, whatever stands in front of it.
  const root = new URL("..", document.currentScript.src);

  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
  dark.addEventListener("change", follow);
  follow();

  const pages = SwaggerUIBundle({
    url: new URL("v1/doc", root).href,
    dom_id: "#api",
    layout: "BaseLayout",
    deepLinking: true,
    displayRequestDuration: true,
    defaultModelsExpandDepth: 0,
    oauth2RedirectUrl: new URL("swagger/oauth2-redirect.html", root).href,
    // A token is gone when the page is.
    persistAuthorization: false,
    // The document is not sent to a service that validates it.
    validatorUrl: null,
  });
  // The application that every server brings for these pages.
  pages.initOAuth({
    clientId: "apipages",
    scopes: "workspace:admin offline_access",
    usePkceWithAuthorizationCodeGrant: true,
  });
})();
