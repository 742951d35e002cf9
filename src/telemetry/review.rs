//! Asks the API server who a token belongs to, and whether that user may GET /metrics.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};

use super::access::Answer;

pub(super) async fn review(client: &Client, token: &str) -> Result<Answer, kube::Error> {
    let spec = TokenReviewSpec { token: Some(token.into()), audiences: None };
    let review = TokenReview { spec, ..TokenReview::default() };
    let reviewed = Api::all(client.clone()).create(&PostParams::default(), &review).await?;
    let Some(user) = user(reviewed) else { return Ok(Answer::Unknown) };
    let review = SubjectAccessReview { spec: reads_metrics(user), ..SubjectAccessReview::default() };
    let reviewed: SubjectAccessReview = Api::all(client.clone()).create(&PostParams::default(), &review).await?;
    // `denied` is a veto; without it, `allowed` alone decides.
    let is_allowed = reviewed.status.is_some_and(|status| status.allowed && status.denied != Some(true));
    Ok(if is_allowed { Answer::Allowed } else { Answer::Forbidden })
}

/// The user of a valid token.
fn user(reviewed: TokenReview) -> Option<UserInfo> {
    reviewed.status.filter(|status| status.authenticated == Some(true))?.user
}

fn reads_metrics(user: UserInfo) -> SubjectAccessReviewSpec {
    let attributes = NonResourceAttributes { path: Some("/metrics".into()), verb: Some("get".into()) };
    SubjectAccessReviewSpec {
        user: user.username,
        groups: user.groups,
        uid: user.uid,
        extra: user.extra,
        non_resource_attributes: Some(attributes),
        ..SubjectAccessReviewSpec::default()
    }
}
