//! The data map: the same verdicts as the audit's, as a picture and as a matrix.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use carnet_api::v1::{Container, Role};
use carnet_core::policy::{attributes_from_csv, requirements_from_csv};
use serde_json::json;

use crate::browser::Browser;
use crate::containers::world;
use crate::plane::{Plane, Someone};

/// The heaviest that a page may be, with all that it loads.
const HEAVIEST: usize = 200_000;

fn paper(name: &str) -> String {
    let file: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../core/fixtures/paper", name]
        .iter()
        .collect();
    std::fs::read_to_string(file).unwrap()
}

/// The marks of the map: the edge, and its class, which is its verdict.
fn marks(html: &str) -> BTreeMap<String, String> {
    html.split(r#"<a href="/edges/"#)
        .skip(1)
        .filter_map(|mark| {
            let (edge, rest) = mark.split_once('"')?;
            let class = rest.strip_prefix(r#" class="mark "#)?;
            Some((edge.to_owned(), class.split('"').next()?.to_owned()))
        })
        .collect()
}

/// The entries of the matrix: the country's row, the organization's column, the edge, its class.
fn cells(html: &str) -> BTreeSet<(String, String, String, String)> {
    let (_, matrix) = html.split_once(r#"<div class="matrix""#).expect(html);
    let matrix = matrix.split("</table>").next().unwrap();
    let (head, body) = matrix.split_once("</thead>").unwrap();
    let columns: Vec<&str> = head
        .split(r#"<th scope="col">"#)
        .skip(2)
        .map(|column| column.split('<').next().unwrap())
        .collect();
    let mut cells = BTreeSet::new();
    for row in body.split(r#"<tr id="in-"#).skip(1) {
        let country = row.split('"').next().unwrap();
        for (cell, column) in row.split("<td>").skip(1).zip(&columns) {
            for entry in cell.split(r#"<p class="cell "#).skip(1) {
                let class = entry.split('"').next().unwrap();
                let (_, edge) = entry.split_once(r#"href="/edges/"#).unwrap();
                let edge = edge.split('"').next().unwrap();
                let owned = [country, column, edge, class].map(str::to_owned);
                let [country, column, edge, class] = owned;
                cells.insert((country, column, edge, class));
            }
        }
    }
    cells
}

/// A container of the mover's at north with the requirements of the form.
async fn app(plane: &Plane, lender: &Someone, mover: &Someone) -> Container {
    let app = plane.container(mover, lender, "north", "app").await;
    let body = json!({"requirements": "jp,us,fr -caB * * * 50 1.6 * * * *"});
    let path = format!("/v1/containers/{}/requirements", app.id);
    plane
        .ask(reqwest::Method::PUT, &path)
        .bearer_auth(&mover.token)
        .json(body)
        .send()
        .await
        .json(200);
    plane.show_container(mover, "app").await
}

#[tokio::test]
async fn the_papers_edges_are_drawn_as_the_paper_decides_and_the_matrix_says_the_same() {
    let plane = Plane::start().await;
    let lender = plane.edge_owner("lender").await;
    let mover = plane.container_owner("mover").await;
    let edges = attributes_from_csv(&paper("edges.csv")).unwrap();
    let usage: BTreeMap<String, (u16, u16)> = paper("edges.csv")
        .lines()
        .skip(1)
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            (cells[0].to_owned(), (0, 0))
        })
        .collect();
    assert_eq!(usage.len(), edges.len());
    for row in &edges {
        let body = row.attributes.to_json();
        let port = 7000 + edges.iter().position(|other| other.name == row.name).unwrap();
        let asked = json!({"name": row.name, "address": format!("192.0.2.9:{port}"), "attributes": body});
        plane.post(&lender, "/v1/edges", asked).await.json(201);
        plane.enrol(&lender, &row.name).await;
        plane.share(&lender, &row.name, &mover).await;
    }
    let mut browser = Browser::of(&plane, &mover).await;
    let (_, first) = requirements_from_csv(&paper("containers.csv")).unwrap().remove(0);
    let container = plane.container(&mover, &lender, &edges[0].name, "app").await;
    let path = format!("/v1/containers/{}/requirements", container.id);
    let body = json!({"requirements": first.to_json()});
    plane
        .ask(reqwest::Method::PUT, &path)
        .bearer_auth(&mover.token)
        .json(body)
        .send()
        .await
        .json(200);
    let page = browser.get("/containers/app/map").await;
    let html = page.is(200);
    let drawn = marks(html);
    println!("{drawn:?}");
    assert_eq!(drawn.len(), edges.len(), "{drawn:?}");
}
