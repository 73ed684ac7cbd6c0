// Swagger UI over the interface of this very server; no validator elsewhere is asked.
SwaggerUIBundle({ url: "openapi.json", dom_id: "#swagger-ui", validatorUrl: null });
