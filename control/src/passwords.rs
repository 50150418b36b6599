//! Passwords of people who use the pages: argon2id, with the parameters that the crate and OWASP
//! recommend (19 MiB, two passes), each with a salt of its own.

use std::sync::LazyLock;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;

use crate::http::problem::ApiError;

/// In characters. Length is what makes a password hard to guess; nothing is said of which.
const SHORTEST: usize = 12;
/// In bytes.
const LONGEST: usize = 256;

/// Each takes 19 MiB and a processor: who asks for many must not starve the moves.
static AT_A_TIME: Semaphore = Semaphore::const_new(2);

/// A hash of a password that nobody has, so that an unknown name takes as long as a known one.
static NOBODYS: LazyLock<Option<String>> = LazyLock::new(|| {
    let secret = crate::secret::Secret::new("", 32).reveal();
    hash_now(&secret)
});

fn hash_now(password: &str) -> Option<String> {
    let hashed = Argon2::default().hash_password(password.as_bytes());
    hashed.ok().map(|hash| hash.to_string())
}

/// # Errors
/// Where `password`, which stands in the field `place`, is not one that `name` should have. It is
/// never repeated.
pub fn check(place: &str, name: &str, password: &str) -> Result<(), ApiError> {
    let fault = |problem: &str| {
        let allowed = "12 to 256 characters, not the account's name; a few words make a good one";
        Err(ApiError::fault(place, "", problem, allowed))
    };
    if password.chars().count() < SHORTEST {
        return fault("too short");
    }
    if password.len() > LONGEST {
        return fault("too long");
    }
    if password.eq_ignore_ascii_case(name) {
        return fault("the account's name");
    }
    Ok(())
}

/// The hash under which a password is kept, a PHC string.
///
/// # Errors
/// Where there is no memory or randomness for it.
pub async fn hash(password: String) -> Result<String, ApiError> {
    let _permit = AT_A_TIME.acquire().await;
    let hashed = tokio::task::spawn_blocking(move || hash_now(&password)).await;
    match hashed {
        Ok(Some(hash)) => Ok(hash),
        Ok(None) => Err(ApiError::internal(&"a password cannot be hashed")),
        Err(error) => Err(ApiError::internal(&error)),
    }
}

/// Whether `password` is the one that was hashed. Without a hash it is not, and takes as long.
///
/// # Errors
/// Where what is kept is no hash.
pub async fn verify(password: String, hash: Option<String>) -> Result<bool, ApiError> {
    let _permit = AT_A_TIME.acquire().await;
    let verified = tokio::task::spawn_blocking(move || {
        let is_known = hash.is_some();
        let hash = hash.or_else(|| NOBODYS.clone()).ok_or("no hash")?;
        let hash = PasswordHash::new(&hash).map_err(|_| "a password's hash is not one")?;
        let bytes = password.as_bytes();
        // Longer ones are nobody's, and need not be worked on.
        let is_it =
            bytes.len() <= LONGEST && Argon2::default().verify_password(bytes, &hash).is_ok();
        Ok::<_, &str>(is_it && is_known)
    });
    match verified.await {
        Ok(Ok(is_it)) => Ok(is_it),
        Ok(Err(error)) => Err(ApiError::internal(&error)),
        Err(error) => Err(ApiError::internal(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_known_again_and_no_other_is() {
        let kept = hash("correct horse battery".to_owned()).await.unwrap();
        assert!(
            kept.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{kept}"
        );
        let again = hash("correct horse battery".to_owned()).await.unwrap();
        assert_ne!(kept, again, "each has a salt of its own");
        let verify =
            |password: &str, hash: Option<&String>| verify(password.to_owned(), hash.cloned());
        assert!(verify("correct horse battery", Some(&kept)).await.unwrap());
        assert!(!verify("correct horse batterz", Some(&kept)).await.unwrap());
        assert!(!verify("", Some(&kept)).await.unwrap());
        assert!(!verify("correct horse battery", None).await.unwrap());
    }

    #[test]
    fn a_password_is_long_and_not_the_name() {
        let faults = |password: &str| match check("password", "a-name-of-mine", password) {
            Ok(()) => Vec::new(),
            Err(error) => error.0.faults,
        };
        assert!(faults("twelve chars").is_empty());
        for bad in ["", "eleven char", "A-Name-of-mine", &"x".repeat(257)] {
            let faults = faults(bad);
            assert_eq!(faults.len(), 1, "{bad}");
            assert_eq!(faults[0].place, "password");
            assert_eq!(faults[0].found, "", "it is not repeated");
        }
    }
}
