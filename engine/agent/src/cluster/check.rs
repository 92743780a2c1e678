//! Whether a verified API server takes a token, and if not, why.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::discover::cluster_info;
use super::error::JoinErrorKind;
use super::http::{Answer, Http};
use super::token::Token;
use crate::log::utc;

/// More than that between two clocks, and tokens and certificates seem expired, or not valid yet.
const SKEW: Duration = Duration::from_secs(300);

/// Asks whether who shows the token may ask for a node's certificate. Everybody who is known may ask this.
pub(super) async fn token(http: &Http, token: &Token) -> Result<(), JoinErrorKind> {
    const REVIEW: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": { "resourceAttributes": {
            "group": "certificates.k8s.io", "resource": "certificatesigningrequests", "verb": "create",
        } },
    });
    let answer = http.post(REVIEW, Some(&token.text()), &review).await?;
    let now = SystemTime::now();
    match answer.status {
        401 => Err(unknown(http, token, answer.date, now).await),
        _ => allowed(&answer, now),
    }
}

/// Asks for nothing but an answer.
pub(super) async fn answers(http: &Http) -> Result<(), JoinErrorKind> {
    let answer = http.get("/version", None).await?;
    match answer.status {
        // Some clusters let nobody ask who is not known; their API servers are API servers all the same.
        401 | 403 => Ok(()),
        200 if answer.body.get("gitVersion").is_some() => clocks(answer.date, SystemTime::now()),
        _ => Err(status(&answer)),
    }
}

fn allowed(answer: &Answer, now: SystemTime) -> Result<(), JoinErrorKind> {
    let allowed = answer.body.pointer("/status/allowed").and_then(Value::as_bool);
    match (answer.status, allowed) {
        (200 | 201, Some(true)) => clocks(answer.date, now),
        (200 | 201, Some(false)) | (403, _) => Err(JoinErrorKind::NotAllowed),
        _ => Err(status(answer)),
    }
}

/// What an answer says that nobody expected.
pub(super) fn status(answer: &Answer) -> JoinErrorKind {
    let is_status = answer.body.get("kind").and_then(Value::as_str) == Some("Status");
    let message = answer.body.get("message").and_then(Value::as_str).filter(|_| is_status);
    match message {
        Some(message) => JoinErrorKind::Status {
            status: answer.status,
            message: message.chars().filter(|c| !c.is_control()).take(300).collect(),
        },
        None => {
            JoinErrorKind::NotKubernetes(format!("it answered {} in its own way", answer.status))
        }
    }
}

/// Why a token got a 401.
async fn unknown(
    http: &Http,
    token: &Token,
    there: Option<SystemTime>,
    now: SystemTime,
) -> JoinErrorKind {
    if let Err(skew) = clocks(there, now) {
        return skew;
    }
    match token {
        Token::Jwt { expires: Some(expires), .. } if *expires <= there.unwrap_or(now) => {
            JoinErrorKind::TokenExpired(utc(*expires))
        }
        Token::Jwt { .. } => JoinErrorKind::TokenRefused,
        Token::Bootstrap { id, secret } => match cluster_info(http).await {
            // The cluster signs with every token that it knows, as long as it knows it.
            Ok(info) => match info.check(id, secret) {
                Ok(()) => JoinErrorKind::TokenNotForAuthentication(id.clone()),
                Err(JoinErrorKind::BadSignature(id)) => JoinErrorKind::TokenWrong(id),
                Err(other) => other,
            },
            Err(_) => JoinErrorKind::TokenUnknown(id.clone()),
        },
    }
}

fn clocks(there: Option<SystemTime>, here: SystemTime) -> Result<(), JoinErrorKind> {
    let Some(there) = there else { return Ok(()) };
    let apart = here.duration_since(there).unwrap_or_else(|error| error.duration());
    match apart > SKEW {
        true => Err(JoinErrorKind::ClockSkew { here: utc(here), there: utc(there) }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: Value) -> Answer {
        Answer { status, body, date: None }
    }

    #[track_caller]
    fn check(status: u16, body: Value, expect: &str) {
        let said = allowed(&answer(status, body), SystemTime::now());
        let said = said.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(said.contains(expect) && said.is_empty() == expect.is_empty(), "{said}");
    }

    #[test]
    fn what_an_answer_means() {
        check(201, json!({ "status": { "allowed": true } }), "");
        check(201, json!({ "status": { "allowed": false } }), "system:node-bootstrapper");
        check(403, json!({}), "system:node-bootstrapper");
        check(200, json!({}), "no API server");
        check(200, json!("hello"), "no API server");
        check(
            500,
            json!({ "kind": "Status", "message": "etcd\u{1b} is gone" }),
            "500: etcd is gone",
        );
        check(502, Value::Null, "answered 502 in its own way");
    }

    #[test]
    fn clocks_that_differ() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert!(clocks(None, at(0)).is_ok());
        assert!(clocks(Some(at(1000)), at(1300)).is_ok());
        assert!(clocks(Some(at(1000)), at(699)).is_err());
        let skew = clocks(Some(at(86_400)), at(0)).unwrap_err().to_string();
        assert!(
            skew.contains("clock says 1970-01-01T00:00:00Z") && skew.contains("1970-01-02"),
            "{skew}"
        );
    }
}
