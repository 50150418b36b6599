use carnet_api::v1::{Account, ApiToken, Role};

use super::quantity::{age, instant};
use super::{details, table};
use crate::output::Surface;

/// A role as the command line writes it.
pub fn role(role: Role) -> &'static str {
    match role {
        Role::EdgeOwner => "edge-owner",
        Role::ContainerOwner => "container-owner",
        Role::Auditor => "auditor",
        Role::Administrator => "administrator",
    }
}

fn roles(all: &[Role]) -> String {
    all.iter()
        .map(|one| role(*one))
        .collect::<Vec<_>>()
        .join(", ")
}

pub fn account(account: &Account, surface: Surface) -> String {
    details(
        &account.name,
        &[
            ("roles", roles(&account.roles)),
            ("created", instant(account.created_at_ms, surface.now)),
            ("id", account.id.to_string()),
        ],
        surface.width,
    )
}

pub fn accounts(accounts: &[Account], surface: Surface) -> String {
    let rows = accounts.iter().map(|account| {
        vec![
            account.name.clone(),
            roles(&account.roles),
            age(account.created_at_ms, surface.now),
        ]
    });
    table(&["ACCOUNT", "ROLES", "CREATED"], rows, surface.width)
}

pub fn tokens(tokens: &[ApiToken], surface: Surface) -> String {
    let rows = tokens.iter().map(|token| {
        vec![
            token.id.to_string(),
            token.label.clone(),
            roles(&token.roles),
            age(token.created_at_ms, surface.now),
            token
                .expires_at_ms
                .map_or_else(|| "never".to_owned(), |at| age(at, surface.now)),
        ]
    });
    table(
        &["TOKEN", "LABEL", "ROLES", "CREATED", "EXPIRES"],
        rows,
        surface.width,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use carnet_core::instant::UnixMillis;

    #[test]
    fn tokens_are_listed_with_what_they_may() {
        let token: ApiToken = serde_json::from_value(serde_json::json!({
            "id": "0192d3c4-0000-7000-8000-000000000001", "label": "laptop",
            "roles": ["edge_owner", "auditor"], "created_at_ms": 0, "expires_at_ms": 7_200_000,
        }))
        .unwrap();
        let surface = Surface {
            now: UnixMillis(3_600_000),
            width: None,
        };
        assert_eq!(
            tokens(&[token], surface),
            "TOKEN                                 LABEL   ROLES                CREATED  EXPIRES\n\
             0192d3c4-0000-7000-8000-000000000001  laptop  edge-owner, auditor  1 h ago  in 1 h"
        );
    }
}
