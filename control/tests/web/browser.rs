//! A browser without scripts: it keeps cookies, and sends the forms of the pages that it has.

use std::collections::BTreeMap;
use std::net::IpAddr;

use carnet_api::v1::NewPassword;
use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::agents::PATIENCE;
use crate::plane::{Plane, Someone};

pub const PASSWORD: &str = "correct horse battery";

pub struct Browser {
    client: reqwest::Client,
    base: String,
    cookies: BTreeMap<String, String>,
}

/// A page, as it was answered.
#[derive(Debug, Clone)]
pub struct Page {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub html: String,
}

impl Browser {
    pub fn new(plane: &Plane) -> Self {
        Self::at(plane, IpAddr::from([127, 0, 0, 1]))
    }

    /// A browser at another of this machine's addresses.
    pub fn at(plane: &Plane, address: IpAddr) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(PATIENCE)
            .local_address(address)
            .redirect(Policy::none());
        Self {
            client: client.build().unwrap(),
            base: plane.base().to_owned(),
            cookies: BTreeMap::new(),
        }
    }

    /// Someone who has registered here, and is logged in.
    pub async fn registered(plane: &Plane, name: &str, roles: &[&str]) -> Self {
        let mut browser = Self::new(plane);
        let mut fields = vec![("name", name), ("password", PASSWORD)];
        fields.extend(roles.iter().map(|role| ("roles", *role)));
        let page = browser.fill("/register", "/register", &fields).await;
        page.leads_to("/");
        browser
    }

    /// Someone whose account there is already, logged in.
    pub async fn of(plane: &Plane, someone: &Someone) -> Self {
        let path = format!("/v1/accounts/{}/password", someone.name);
        let made = plane.post(&plane.administrator, &path, json!({})).await;
        let password: NewPassword = made.read(201);
        let mut browser = Self::new(plane);
        let fields = [
            ("name", someone.name.as_str()),
            ("password", password.secret.as_str()),
        ];
        browser
            .fill("/log-in", "/log-in", &fields)
            .await
            .leads_to("/");
        browser
    }

    pub async fn get(&mut self, path: &str) -> Page {
        self.ask(Method::GET, path, &[], None).await
    }

    /// Sends the form that `page` has to `action`, as a browser does.
    pub async fn fill(&mut self, page: &str, action: &str, fields: &[(&str, &str)]) -> Page {
        let shown = self.get(page).await;
        assert_eq!(shown.status, 200, "{page}: {}", shown.html);
        let html = &shown.html;
        assert!(html.contains(&format!(r#"action="{action}""#)), "{html}");
        let token = shown.form_token();
        let mut sent = vec![("form_token", token.as_str())];
        sent.extend(fields);
        self.send(action, &sent).await
    }

    /// Sends these fields, and no others, from a page of ours.
    pub async fn send(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        let headers = [
            ("origin", self.base.clone()),
            ("sec-fetch-site", "same-origin".to_owned()),
        ];
        let body = written(fields);
        self.ask(Method::POST, path, &headers, Some(body)).await
    }

    /// Asks anything.
    pub async fn ask(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
        form: Option<String>,
    ) -> Page {
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.base))
            .header("accept", "text/html,application/xhtml+xml");
        let cookies: Vec<String> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if !cookies.is_empty() {
            request = request.header("cookie", cookies.join("; "));
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if let Some(form) = form {
            request = request
                .header("content-type", "application/x-www-form-urlencoded")
                .body(form);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        for cookie in headers.get_all("set-cookie") {
            let cookie = cookie.to_str().unwrap();
            let (pair, attributes) = cookie.split_once("; ").unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            // As a browser takes `__Host-`.
            assert!(name.starts_with("__Host-"), "{cookie}");
            for attribute in ["Path=/", "Secure", "HttpOnly", "SameSite=Lax"] {
                assert!(attributes.split("; ").any(|it| it == attribute), "{cookie}");
            }
            if attributes.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        let html = response.text().await.unwrap();
        Page {
            status,
            headers,
            html,
        }
    }

    /// What is streamed, as it comes.
    pub async fn stream(&self, path: &str) -> reqwest::Response {
        let cookies: Vec<String> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let request = self.client.get(format!("{}{path}", self.base));
        let request = request.header("cookie", cookies.join("; "));
        request.send().await.unwrap()
    }

    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies.get(name).map(String::as_str)
    }

    pub fn put_cookie(&mut self, name: &str, value: &str) {
        self.cookies.insert(name.to_owned(), value.to_owned());
    }
}

/// Fields as a form sends them.
pub fn written(fields: &[(&str, &str)]) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(fields);
    form.finish()
}

impl Page {
    /// Fails where it is not a page with this status.
    pub fn is(&self, status: u16) -> &str {
        assert_eq!(self.status.as_u16(), status, "{}", self.html);
        let kind = self.headers["content-type"].to_str().unwrap();
        assert_eq!(kind, "text/html; charset=utf-8");
        &self.html
    }

    /// Fails where it does not send the browser to `path`.
    pub fn leads_to(&self, path: &str) {
        assert_eq!(self.status, 303, "{}", self.html);
        assert_eq!(self.headers["location"], path);
    }

    /// The token of its forms.
    pub fn form_token(&self) -> String {
        let begin = r#"name="form_token" value=""#;
        let (_, rest) = self.html.split_once(begin).expect(&self.html);
        rest.split('"').next().unwrap().to_owned()
    }

    /// What is said at a field that is at fault.
    pub fn faults_at(&self, field: &str) -> String {
        let begin = format!(r#"id="{field}-faults""#);
        let Some((_, rest)) = self.html.split_once(&begin) else {
            return String::new();
        };
        rest.split("</div>").next().unwrap().to_owned()
    }
}
