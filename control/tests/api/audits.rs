//! Audits: verdicts with their reasons, and what there is no verdict about.

use carnet_api::v1::{Attempt, AttemptOutcome, AuditReport, Migration, Reason};
use carnet_core::ids::EdgeId;
use serde_json::{Value, json};

use crate::http::Answer;
use crate::plane::{ATTRIBUTES, Plane, Someone};

struct People {
    plane: Plane,
    owner: Someone,
    ann: Someone,
    south: EdgeId,
}

/// A container `web` on `north`, and an edge `south` that it may go to.
async fn people() -> People {
    let plane = Plane::start().await;
    let owner = plane.edge_owner("owner").await;
    let ann = plane.container_owner("ann").await;
    plane.edge(&owner, "north").await;
    let south = plane.edge(&owner, "south").await.id;
    plane.share(&owner, "north", &ann).await;
    plane.share(&owner, "south", &ann).await;
    plane.container(&ann, &owner, "north", "web").await;
    People {
        plane,
        owner,
        ann,
        south,
    }
}

async fn audit(plane: &Plane, who: &Someone, to: Value) -> Answer {
    let body = json!({"container": "web", "to": to});
    plane.post(who, "/v1/audits", body).await
}

/// The verdict over `south`.
async fn verdict(plane: &Plane, who: &Someone) -> Attempt {
    let answer = audit(plane, who, json!({"edge": "south"})).await;
    let mut report: AuditReport = answer.read(200);
    assert_eq!(report.attempts.len(), 1);
    report.attempts.remove(0)
}

async fn require(plane: &Plane, who: &Someone, row: &str) {
    let body = json!({"requirements": row});
    let path = "/v1/containers/web/requirements";
    plane.put(who, path, body).await.json(200);
}

fn problems(attempt: &Attempt) -> &[String] {
    match &attempt.outcome {
        AttemptOutcome::NotReady { problems } => problems,
        other => panic!("{other:?}"),
    }
}

fn reasons(attempt: &Attempt) -> &[Reason] {
    match &attempt.outcome {
        AttemptOutcome::Denied { reasons } => reasons,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_denial_tells_every_reason_in_the_papers_order() {
    let People {
        plane,
        owner,
        ann,
        south,
    } = people().await;
    require(&plane, &ann, "jp caX deX lxc 10 10 3 16 yes tpu onnx").await;
    let body = json!({"attributes": "B de caA,caB deB kvm 2.6 8 no - -"});
    plane
        .put(&owner, "/v1/edges/south/attributes", body)
        .await
        .json(200);
    plane
        .agents
        .change(south, |edge| edge.used = Some((2050, 3000)));
    let answer = audit(&plane, &ann, json!({"edge": "south"}))
        .await
        .json(200);
    let attempt = &answer["attempts"][0];
    assert_eq!(attempt["outcome"], "denied");
    let expected = [
        [
            "allowed_locations",
            "cDAl",
            "`jp`",
            "`de`",
            "an edge in `jp`",
        ],
        [
            "allowed_organizations",
            "cDAo",
            "`caX`",
            "`caA` and `caB`",
            "an edge managed only by `caX`",
        ],
        [
            "allowed_manufacturers",
            "cHRh",
            "`deX`",
            "`deB`",
            "an edge made by `deX`",
        ],
        [
            "virtualization",
            "cHRt",
            "`lxc`",
            "`kvm`",
            "an edge with `lxc`",
        ],
        [
            "max_cpu_percent",
            "cHRcu",
            "at most 10 %",
            "20.5 % now",
            "CPU use of 10 % or less",
        ],
        [
            "max_memory_percent",
            "cHRmu",
            "at most 10 %",
            "30 % now",
            "memory use of 10 % or less",
        ],
        [
            "min_cpu_ghz",
            "cHRc",
            "at least 3 GHz",
            "`2.6` GHz",
            "an edge with 3 GHz or more",
        ],
        [
            "min_memory_gb",
            "cHRm",
            "at least 16 GB",
            "`8` GB",
            "an edge with 16 GB or more",
        ],
        [
            "ai_support",
            "cHRgpu",
            "support for AI",
            "no support for AI",
            "an edge that supports AI",
        ],
        [
            "ai_accessories",
            "cHRac",
            "`tpu`",
            "nothing known",
            "an edge that also has `tpu`",
        ],
        [
            "ai_frameworks",
            "cHRaf",
            "`onnx`",
            "nothing known",
            "an edge that also has `onnx`",
        ],
    ];
    let expected = expected.map(|[element, paper_name, required, found, satisfied_by]| {
        json!({
            "element": element, "paper_name": paper_name, "required": required,
            "found": found, "satisfied_by": satisfied_by,
        })
    });
    assert_eq!(attempt["reasons"], json!(expected));
}

#[tokio::test]
async fn a_verdict_tells_what_it_was_made_of_and_nothing_moves() {
    let People {
        plane, ann, south, ..
    } = people().await;
    plane.agents.change(south, |edge| {
        edge.used = Some((5999, 5000));
        edge.age_ms = 9_000;
    });
    let attempt = verdict(&plane, &ann).await;
    assert_eq!(attempt.outcome, AttemptOutcome::Permitted);
    assert_eq!((attempt.edge, attempt.edge_name.as_str()), (south, "south"));
    assert_eq!(attempt.attributes_revision, 1);
    let reading = attempt.utilization.unwrap();
    assert_eq!((reading.cpu_percent, reading.memory_percent), (59.99, 50.0));
    let age = attempt.audited_at_ms.0 - reading.read_at_ms.0;
    assert!((9_000..10_000).contains(&age), "{age}");
    assert!(attempt.compare_micros >= 0.0 && attempt.reading_micros > 0.0);

    // What was read is shown of the edge; nothing else is kept.
    let edge = plane.show_edge(&ann, "south").await;
    assert_eq!(edge.utilization, Some(reading));
    let migrations: Vec<Migration> = plane.get(&ann, "/v1/migrations").await.read(200);
    assert_eq!(migrations, []);
    let web = plane.show_container(&ann, "web").await;
    assert_eq!((web.edge_name.as_str(), web.generation), ("north", 1));
}

#[tokio::test]
async fn what_is_not_known_of_an_edge_denies_what_asks_for_it() {
    let People {
        plane, ann, south, ..
    } = people().await;
    let elements = |attempt: &Attempt| -> Vec<(String, String)> {
        let reasons = reasons(attempt).iter();
        reasons
            .map(|reason| (reason.element.clone(), reason.found.clone()))
            .collect()
    };
    let denied = |found: &str| {
        let found = found.to_owned();
        [
            ("max_cpu_percent".to_owned(), found.clone()),
            ("max_memory_percent".to_owned(), found),
        ]
    };
    // Too old, not there, out of range, no answer at all: and why.
    plane.agents.change(south, |edge| edge.age_ms = 10_500);
    let old = denied("a reading that is too old or from the future");
    assert_eq!(elements(&verdict(&plane, &ann).await), old);
    plane.agents.change(south, |edge| edge.used = None);
    assert_eq!(elements(&verdict(&plane, &ann).await), denied("no reading"));
    plane
        .agents
        .change(south, |edge| edge.used = Some((10_001, 0)));
    let told = elements(&verdict(&plane, &ann).await);
    let range = "its reading is out of range: 10001 and 0 hundredths of a percent";
    assert_eq!(told, denied(&format!("no reading: {range}")));
    plane.agents.change(south, |edge| edge.reachable = false);
    let told = elements(&verdict(&plane, &ann).await);
    assert_eq!(told, denied(&told[0].1));
    let why = told[0].1.strip_prefix("no reading: ").unwrap();
    assert!(why.contains("`south`") && why.contains("connection refused"));

    // Where nothing asks for it, the edge is not ready all the same.
    require(&plane, &ann, "de * * lxc * * 1.6 4 * * *").await;
    let attempt = verdict(&plane, &ann).await;
    assert!(
        problems(&attempt)[0].contains("connection refused"),
        "{attempt:?}"
    );
    plane.agents.change(south, |edge| edge.reachable = true);
    let attempt = verdict(&plane, &ann).await;
    assert!(
        problems(&attempt)[0].contains("out of range"),
        "{attempt:?}"
    );
    plane.agents.change(south, |edge| edge.used = Some((0, 0)));
    assert_eq!(
        verdict(&plane, &ann).await.outcome,
        AttemptOutcome::Permitted
    );
}

#[tokio::test]
async fn an_edge_that_cannot_take_a_container_now_says_why() {
    let People {
        plane,
        owner,
        ann,
        south,
    } = people().await;
    let ready = verdict(&plane, &ann).await;
    assert_eq!(ready.outcome, AttemptOutcome::Permitted);
    plane.agents.change(south, |edge| {
        edge.problems = vec!["criu is missing".to_owned(), "no space".to_owned()];
    });
    let bob = plane.container_owner("bob").await;
    plane.share(&owner, "south", &bob).await;
    plane.pending(&bob, "south", "web").await;
    let attempt = verdict(&plane, &ann).await;
    assert_eq!(problems(&attempt), ["criu is missing", "no space"]);
    // Somebody's of that name is there, and confirmed.
    plane
        .post(&owner, "/v1/containers/web/confirm", json!({}))
        .await
        .problem(409, "conflict");
    let theirs = plane.show_container(&bob, "web").await.id;
    let path = format!("/v1/containers/{theirs}/confirm");
    plane.post(&owner, &path, json!({})).await.json(200);
    let attempt = verdict(&plane, &ann).await;
    assert_eq!(
        problems(&attempt).last().unwrap(),
        "`south` has another container `web`"
    );
    // Where the policy denies, that is what counts.
    require(&plane, &ann, "jp * * * * * * * * * *").await;
    assert_eq!(reasons(&verdict(&plane, &ann).await).len(), 1);

    // One that has no agent yet.
    require(&plane, &ann, "* * * * * * * * * * *").await;
    let body = json!({"name": "new", "address": "192.0.2.99:1", "attributes": ATTRIBUTES});
    plane.post(&owner, "/v1/edges", body).await.json(201);
    plane.share(&owner, "new", &ann).await;
    let report: AuditReport = audit(&plane, &ann, json!({"edge": "new"})).await.read(200);
    let told = problems(&report.attempts[0]);
    assert_eq!(told, ["`new` has not been enrolled: it has no agent yet"]);
}

#[tokio::test]
async fn every_candidate_is_audited_once_and_never_where_the_container_is() {
    let People {
        plane, owner, ann, ..
    } = people().await;
    for (name, row) in [
        ("east", "A jp caA deA lxc 2 8 - - -"),
        ("west", "A de caA deA lxc 2 8 - - -"),
    ] {
        plane.edge_as(&owner, name, row).await;
        plane.share(&owner, name, &ann).await;
    }
    let names = async |to: Value| -> Vec<String> {
        let report: AuditReport = audit(&plane, &ann, to.clone()).await.read(200);
        assert_eq!(serde_json::to_value(&report.to).unwrap(), to);
        assert_eq!(report.container, "web");
        let attempts = report.attempts.into_iter();
        let mut names: Vec<String> = attempts.map(|attempt| attempt.edge_name).collect();
        names.sort();
        names
    };
    assert_eq!(
        names(json!({"anywhere": true})).await,
        ["east", "south", "west"]
    );
    assert_eq!(names(json!({"region": "A"})).await, ["east", "west"]);
    assert_eq!(names(json!({"region": "B"})).await, ["south"], "not north");
    assert_eq!(names(json!({"edge": "east"})).await, ["east"]);
    let id = plane.show_edge(&ann, "west").await.id;
    assert_eq!(names(json!({"edge": id})).await, ["west"]);
}

/// What audits and moves say alike of a destination that is none.
pub async fn refusals(route: &str) {
    let People {
        plane, owner, ann, ..
    } = people().await;
    let ask = async |body: Value| plane.post(&ann, route, body).await;
    let to = |to: Value| json!({"container": "web", "to": to});
    let fault = |answer: &Answer| {
        let fault = answer.problem(422, "faulty-input").faults.remove(0);
        (fault.place, fault.found, fault.suggestion)
    };
    let told = |place: &str, found: &str, suggestion: Option<&str>| {
        (
            place.to_owned(),
            found.to_owned(),
            suggestion.map(str::to_owned),
        )
    };
    let answer = ask(to(json!({"edge": "sooth"}))).await;
    assert_eq!(fault(&answer), told("to.edge", "sooth", Some("south")));
    let answer = ask(to(json!({"edge": ""}))).await;
    assert_eq!(fault(&answer), told("to.edge", "", None));
    let answer = ask(to(json!({"region": "b"}))).await;
    assert_eq!(fault(&answer), told("to.region", "b", Some("B")));
    let answer = ask(to(json!({"region": "de"}))).await;
    assert_eq!(fault(&answer), told("to.region", "de", None));
    let answer = ask(to(json!({"anywhere": false}))).await;
    assert_eq!(fault(&answer), told("to.anywhere", "false", None));

    let answer = ask(to(json!({"edge": "north"}))).await;
    assert_eq!(
        answer.detail(409, "conflict"),
        "`web` is on `north` already"
    );
    let answer = ask(json!({"container": "wep", "to": {"anywhere": true}})).await;
    assert!(answer.detail(404, "not-found").contains("container `wep`"));

    for (to, told) in [
        (json!({"edge": "south", "region": "B"}), "single key"),
        (json!({}), "single key"),
        (json!({"planet": "mars"}), "unknown variant `planet`"),
        (json!({"anywhere": "yes"}), "expected a boolean"),
        (json!("south"), "expected"),
        (json!(null), "expected"),
    ] {
        let answer = ask(json!({"container": "web", "to": to})).await;
        let detail = answer.detail(422, "unfit-body");
        assert!(detail.contains(told), "{to}: {detail}");
    }
    // The only edge that may be used is the one that it is on.
    let keys: Value = plane
        .get(&owner, "/v1/edges/south/share-keys")
        .await
        .json(200);
    let key = keys[0]["id"].as_str().unwrap();
    plane
        .delete(&owner, &format!("/v1/share-keys/{key}"))
        .await
        .json(200);
    for destination in [json!({"anywhere": true}), json!({"region": "B"})] {
        let answer = ask(to(destination)).await;
        let detail = answer.detail(409, "conflict");
        assert!(detail.contains("`web` is on `north`"), "{detail}");
    }
}

#[tokio::test]
async fn a_destination_that_is_none_is_told_with_what_was_meant() {
    refusals("/v1/audits").await;
}

#[tokio::test]
async fn a_container_that_is_not_confirmed_can_be_audited() {
    let People {
        plane, owner, ann, ..
    } = people().await;
    let job = plane.pending(&ann, "north", "job").await;
    let body = json!({"container": job.id, "to": {"edge": "south"}});
    let report: AuditReport = plane.post(&ann, "/v1/audits", body).await.read(200);
    assert_eq!(report.attempts[0].outcome, AttemptOutcome::Permitted);
    // By its owner alone.
    let body = json!({"container": job.id, "to": {"edge": "south"}});
    let refused = plane.post(&owner, "/v1/audits", body).await;
    refused.problem(403, "forbidden");
}
