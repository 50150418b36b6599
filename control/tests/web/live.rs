//! What a page is told while it is looked at.

use carnet_control::http::access::Access;
use carnet_control::web::access::PAGES;

use crate::browser::Browser;
use crate::containers::world;
use crate::plane::Plane;

#[tokio::test]
async fn a_page_is_told_of_moves_that_it_may_show_and_the_stream_ends_with_the_control_plane() {
    let (plane, lender, mover) = world().await;
    plane.container(&mover, &lender, "north", "app").await;
    let stranger = plane.container_owner("stranger").await;
    let stranger = Browser::of(&plane, &stranger).await;
    let browser = Browser::of(&plane, &mover).await;
    let mut of_mover = browser.stream("/live").await;
    let of_stranger = stranger.stream("/live").await;
    // On an edge of theirs a container is less, and on one a container more.
    let of_lender = Browser::of(&plane, &lender).await.stream("/live").await;
    // Another's edges have nothing to do with it.
    let other_lender = plane.edge_owner("other-lender").await;
    let other_lender = Browser::of(&plane, &other_lender).await;
    let of_other_lender = other_lender.stream("/live").await;
    assert_eq!(of_mover.status(), 200);
    assert_eq!(of_mover.headers()["content-type"], "text/event-stream");

    let migration = plane.start_move(&mover, "app", "far").await;
    let mut told = String::new();
    while !told.contains("event: changed\ndata: migration\n") {
        let chunk = of_mover.chunk().await.unwrap();
        told.push_str(std::str::from_utf8(&chunk.expect(&told)).unwrap());
    }
    plane.end_of(&mover, &migration).await;
    plane.stop.send(()).unwrap();
    told.push_str(&of_mover.text().await.unwrap());
    assert!(!told.contains(&migration.id.to_string()), "{told}");
    let of_lender = of_lender.text().await.unwrap();
    assert!(of_lender.contains("data: migration\n"), "{of_lender}");
    let of_other_lender = of_other_lender.text().await.unwrap();
    assert!(!of_other_lender.contains("migration"), "{of_other_lender}");
    let of_stranger = of_stranger.text().await.unwrap();
    assert!(!of_stranger.contains("migration"), "{of_stranger}");
}

#[tokio::test]
async fn nobody_follows_who_is_not_logged_in() {
    let plane = Plane::start().await;
    let (_, _, access) = PAGES
        .iter()
        .find(|(_, route, _)| *route == "/live")
        .unwrap();
    assert!(matches!(access, Access::Roles(_)));
    let mut nobody = Browser::new(&plane);
    nobody.get("/live").await.leads_to("/log-in?next=%2Flive");
}
