use std::fs;
use std::path::PathBuf;

use carnet_api::client::Client;
use carnet_api::tls::Authority;
use clap::Args;

use crate::failure::Failure;

/// Where the control plane is, and as whom to speak to it.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection and output")]
pub struct ClientArguments {
    /// Address of the control plane, https://HOST:PORT [env: CARNET_URL]
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// The control plane's CA certificate, a PEM file [env: CARNET_CA]
    #[arg(long, global = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// A file with your API token [env: CARNET_TOKEN_FILE; or CARNET_TOKEN with the token itself]
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Answer with the API's JSON, for programs
    #[arg(long, global = true)]
    pub json: bool,
}

/// What it takes to speak to a control plane.
#[derive(Debug)]
pub struct Connection {
    url: String,
    authority: Authority,
    token: String,
}

/// The address of a control plane: `https://HOST:PORT`, and nothing behind it.
///
/// # Errors
/// Where `text` is none, in words.
pub fn control_url(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("https://").unwrap_or_default();
    let host = host.trim_end_matches('/');
    let is_host = !host.is_empty()
        && host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']'));
    if is_host {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{text}` is not an address of a control plane: it reads https://HOST:PORT"
        ))
    }
}

impl ClientArguments {
    /// The connection that arguments and environment name together; an argument comes first.
    ///
    /// # Errors
    /// All that is missing or unusable, at once.
    pub fn resolve(
        &self,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Connection, Failure> {
        let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
        let url = self.url(&variable);
        let authority = self.authority(&variable);
        let token = self.token(&variable);
        match (url, authority, token) {
            (Ok(url), Ok(authority), Ok(token)) => Ok(Connection {
                url,
                authority,
                token,
            }),
            (url, authority, token) => {
                let missing: Vec<String> = [url.err(), authority.err(), token.err()]
                    .into_iter()
                    .flatten()
                    .collect();
                Err(Failure::bad_input(format!(
                    "cannot reach a control plane:\n  {}",
                    missing.join("\n  ")
                ))
                .with_help(
                    "`carnet serve --data DIR` keeps its CA in DIR/authority.pem, and puts the \
                     first administrator's token in DIR/administrator.token",
                ))
            }
        }
    }

    fn url(&self, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
        let url = self
            .url
            .clone()
            .or_else(|| variable("CARNET_URL"))
            .ok_or("its address is missing: give --url https://HOST:PORT, or set CARNET_URL")?;
        control_url(&url)
    }

    fn authority(&self, variable: &dyn Fn(&str) -> Option<String>) -> Result<Authority, String> {
        let path = self
            .ca
            .clone()
            .or_else(|| variable("CARNET_CA").map(PathBuf::from))
            .ok_or("its CA is missing: give --ca FILE, or set CARNET_CA to the file's path")?;
        let pem = fs::read_to_string(&path)
            .map_err(|error| format!("cannot read the CA `{}`: {error}", path.display()))?;
        Authority::from_pem(&pem).map_err(|error| format!("CA `{}`: {error}", path.display()))
    }

    fn token(&self, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
        let read = |path: PathBuf| {
            let token = fs::read_to_string(&path)
                .map_err(|error| format!("cannot read the token `{}`: {error}", path.display()))?;
            checked(&token, &format!("`{}`", path.display()))
        };
        if let Some(path) = &self.token_file {
            return read(path.clone());
        }
        if let Some(token) = variable("CARNET_TOKEN") {
            return checked(&token, "CARNET_TOKEN");
        }
        match variable("CARNET_TOKEN_FILE") {
            Some(path) => read(path.into()),
            None => Err(
                "your token is missing: give --token-file FILE, or set CARNET_TOKEN_FILE or \
                 CARNET_TOKEN"
                    .to_owned(),
            ),
        }
    }
}

/// A token goes into a header: nothing but visible ASCII.
fn checked(token: &str, place: &str) -> Result<String, String> {
    let token = token.trim();
    if token.is_empty() {
        Err(format!("{place} holds no token: it is empty"))
    } else if token.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(token.to_owned())
    } else {
        Err(format!(
            "{place} holds no token: a token is one word of ASCII characters"
        ))
    }
}

impl Connection {
    pub fn url(&self) -> &str {
        &self.url
    }

    /// # Errors
    /// Where TLS or HTTP cannot be set up.
    pub fn client(self) -> Result<Client, Failure> {
        Ok(Client::new(&self.url, &self.authority, Some(self.token))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &str = include_str!("test-authority.pem");

    fn nothing(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn all_that_is_missing_is_said_at_once() {
        let failure = ClientArguments::default().resolve(&nothing).unwrap_err();
        let text = failure.to_string();
        for part in [
            "--url",
            "CARNET_URL",
            "--ca",
            "CARNET_CA",
            "--token-file",
            "CARNET_TOKEN",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn all_that_is_unusable_is_said_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let empty = directory.path().join("empty");
        fs::write(&empty, " \n").unwrap();
        let text = ClientArguments {
            url: Some("http://x".to_owned()),
            ca: Some(empty.clone()),
            token_file: Some(empty),
            json: false,
        }
        .resolve(&nothing)
        .unwrap_err()
        .to_string();
        for part in ["`http://x` is not an address", "CA `", "it is empty"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn an_argument_comes_before_the_environment_and_a_token_before_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let ca = file("ca.pem", CA);
        let by_argument = file("argument", "by-argument\n");
        let by_file = file("file", "by-file\n");
        let environment = |name: &str| match name {
            "CARNET_URL" => Some("https://environment:1".to_owned()),
            "CARNET_CA" => Some(ca.display().to_string()),
            "CARNET_TOKEN" => Some("by-variable".to_owned()),
            "CARNET_TOKEN_FILE" => Some(by_file.display().to_string()),
            _ => None,
        };
        let mut arguments = ClientArguments::default();
        let resolved = arguments.resolve(&environment).unwrap();
        assert_eq!(resolved.url, "https://environment:1");
        assert_eq!(resolved.token, "by-variable");
        let only_file = |name: &str| environment(name).filter(|_| name != "CARNET_TOKEN");
        assert_eq!(arguments.resolve(&only_file).unwrap().token, "by-file");
        arguments.url = Some("https://argument:2/".to_owned());
        arguments.token_file = Some(by_argument);
        let resolved = arguments.resolve(&environment).unwrap();
        assert_eq!(resolved.url, "https://argument:2/");
        assert_eq!(resolved.token, "by-argument");
    }

    #[test]
    fn a_token_fits_a_header() {
        for token in ["a b", "a\nb", "é"] {
            assert!(checked(token, "x").is_err(), "{token}");
        }
    }
}
