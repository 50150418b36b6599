//! Quantities and states in words, as pages tell them.

use carnet_api::v1::Role;
use carnet_core::instant::UnixMillis;

pub(super) fn role(role: Role) -> &'static str {
    match role {
        Role::EdgeOwner => "edge owner",
        Role::ContainerOwner => "container owner",
        Role::Auditor => "auditor",
        Role::Administrator => "administrator",
    }
}

/// How long ago `at` was.
pub(super) fn ago(at: UnixMillis, now: UnixMillis) -> String {
    let seconds = (now.0 - at.0) / 1_000;
    match seconds {
        ..1 => "now".to_owned(),
        1..90 => format!("{seconds} s ago"),
        90..5_400 => format!("{} min ago", seconds / 60),
        5_400..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_the_unit_that_fits() {
        let told = |seconds: i64| ago(UnixMillis(0), UnixMillis(seconds * 1_000));
        let ages = [0, 89, 90, 5_399, 5_400, 172_799, 172_800].map(told);
        let expected = [
            "now",
            "89 s ago",
            "1 min ago",
            "89 min ago",
            "1 h ago",
            "47 h ago",
            "2 days ago",
        ];
        assert_eq!(ages, expected);
    }
}
