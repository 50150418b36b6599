//! The API's description (OpenAPI 3.1), made from the handlers themselves.

use axum::Json;
use axum::http::Method;
use carnet_api::v1::Problem;
use serde::{Deserialize, Serialize};
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{Modify, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{Access, ROUTES};
use super::{App, access};

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Carnet",
        description = "Lets a container move between edge servers only where its data may go.\n\n\
            Instants are milliseconds since the Unix epoch. Errors are `application/problem+json`. \
            A POST that creates something may carry an `Idempotency-Key`: repeated within 24 hours \
            with the same body it is answered as the first time, with the header \
            `idempotency-replayed: true`, and does nothing; secrets are shown once only and are \
            absent from such an answer."
    ),
    components(schemas(Problem)),
    modifiers(&BearerToken),
    security(("token" = []))
)]
struct Frame;

struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(
            "token",
            SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()),
        );
    }
}

/// The description's frame, without routes.
pub(super) fn frame() -> utoipa::openapi::OpenApi {
    Frame::openapi()
}

/// The whole description. Handlers describe what they answer; what the layers around them answer
/// is added here, for all alike.
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = super::routes().to_openapi();
    for (method, path, access) in ROUTES {
        if let Some(operation) = operation(&mut document, method, path) {
            complete(operation, method, *access);
        }
    }
    // How the router writes a parameter that may hold slashes is its own affair.
    let paths = std::mem::take(&mut document.paths.paths);
    document.paths.paths = paths
        .into_iter()
        .map(|(path, item)| (path.replace("{*", "{"), item))
        .collect();
    document
}

fn operation<'a>(
    document: &'a mut utoipa::openapi::OpenApi,
    method: &Method,
    path: &str,
) -> Option<&'a mut Operation> {
    let item = document.paths.paths.get_mut(path)?;
    match *method {
        Method::GET => item.get.as_mut(),
        Method::POST => item.post.as_mut(),
        Method::PUT => item.put.as_mut(),
        Method::DELETE => item.delete.as_mut(),
        _ => None,
    }
}

fn complete(operation: &mut Operation, method: &Method, access: Access) {
    let mut problems = vec![("500", "Carnet is at fault.".to_owned())];
    if access != Access::Public {
        problems.push(("401", "The API token is missing, or not good.".to_owned()));
    }
    if let Access::Roles(roles) = access {
        let roles = access::names(roles);
        problems.push(("403", format!("The token has none of the roles {roles}.")));
    }
    if operation.request_body.is_some() {
        problems.push(("400", "The body is not JSON.".to_owned()));
        problems.push(("413", "The body is too large.".to_owned()));
        problems.push(("415", "The body is not declared as JSON.".to_owned()));
        problems.push(("422", "The input is faulty; with every fault.".to_owned()));
    }
    if *method == Method::POST && access != Access::Public {
        let under_way = "A request with this `Idempotency-Key` is under way.";
        let anothers = "The `Idempotency-Key` is none, or was used for another request.";
        problems.push(("409", under_way.to_owned()));
        problems.push(("413", "The body is too large.".to_owned()));
        problems.push(("422", anothers.to_owned()));
        operation
            .parameters
            .get_or_insert_default()
            .push(RefOr::T(idempotency_key()));
    }
    let responses = &mut operation.responses.responses;
    for (status, description) in problems {
        let problem = ResponseBuilder::new()
            .description(description)
            .content(JSON, Content::new(Some(Ref::from_schema_name("Problem"))))
            .build();
        responses.entry(status.to_owned()).or_insert(problem.into());
    }
    for (status, response) in responses {
        if let RefOr::T(response) = response
            && status.as_str() >= "400"
        {
            as_problem(response);
        }
    }
}

fn as_problem(response: &mut Response) {
    if let Some(content) = response.content.shift_remove(JSON) {
        response.content.insert(PROBLEM.to_owned(), content);
    }
}

fn idempotency_key() -> Parameter {
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .description(Some("Repeated with it, the request is carried out once."))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build()
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(openapi_document))
}

/// That the control plane answers.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Alive {
    /// Carnet's version.
    pub version: String,
}

/// Says that the control plane answers.
#[utoipa::path(
    get, path = "/v1/health", tag = "api", security(()),
    responses((status = 200, description = "It does.", body = Alive))
)]
async fn health() -> Json<Alive> {
    Json(Alive {
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// This document.
#[utoipa::path(
    get, path = "/v1/openapi.json", tag = "api", security(()),
    responses((status = 200, description = "OpenAPI 3.1.", body = Object))
)]
async fn openapi_document() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}
