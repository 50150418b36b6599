//! The form for fleets says what `audit` says, edge by edge.

use carnet_core::policy::compiled::Fleet;
use carnet_core::policy::{
    Attributes, Country, Frequency, Memory, Name, Region, Requirements, Verdict,
    attributes_from_compact, audit, requirements_from_compact,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::written::{self, MAX_READING_AGE_MS, NOW, WrittenReading};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_fleet_is_permitted_where_the_audit_permits(
        containers in vec(written::requirements(), 1..8),
        edges in vec((written::attributes(), written::reading()), 1..40),
    ) {
        let edges: Vec<_> = edges
            .iter()
            .map(|(row, reading)| {
                let attributes = attributes_from_compact(&row.join(" ")).unwrap();
                (attributes, reading.as_ref().map(WrittenReading::utilization))
            })
            .collect();
        let mut fleet = Fleet::default();
        let positions: Vec<_> = edges
            .iter()
            .map(|(attributes, _)| fleet.push(attributes).unwrap())
            .collect();
        for row in containers {
            let requirements = requirements_from_compact(&row.join(" ")).unwrap();
            let compiled = fleet.compile(&requirements);
            for (&position, (attributes, reading)) in positions.iter().zip(&edges) {
                let verdict = audit(
                    &requirements,
                    attributes,
                    reading.as_ref(),
                    NOW,
                    MAX_READING_AGE_MS,
                );
                let fresh = reading
                    .as_ref()
                    .filter(|reading| reading.is_fresh(NOW, MAX_READING_AGE_MS));
                prop_assert_eq!(
                    compiled.permits(position, fresh),
                    verdict == Verdict::Permit,
                    "{} at {}: {:?}", requirements.to_compact(), attributes.to_compact(), verdict
                );
            }
        }
    }
}

/// An edge of which only the manufacturer is known.
fn made_by(manufacturer: &str) -> Attributes {
    Attributes {
        manufacturer: Some(Name::new(manufacturer).unwrap()),
        ..Attributes::default()
    }
}

/// Requirements that ask for a manufacturer and nothing else.
fn asks_for(manufacturer: &str) -> Requirements {
    requirements_from_compact(&format!("* * {manufacturer} * * * * * * * *")).unwrap()
}

#[test]
fn every_value_is_told_from_every_other() {
    // More than three words of 64 bits.
    let names: Vec<String> = (0..200).map(|number| format!("de{number}")).collect();
    let mut fleet = Fleet::default();
    let positions: Vec<_> = names
        .iter()
        .map(|name| fleet.push(&made_by(name)).unwrap())
        .collect();
    for required in &names {
        let requirements = asks_for(required);
        let excluding = asks_for(&format!("-{required}"));
        let (compiled, excluding) = (fleet.compile(&requirements), fleet.compile(&excluding));
        for (&position, name) in positions.iter().zip(&names) {
            assert_eq!(compiled.permits(position, None), name == required);
            assert_eq!(excluding.permits(position, None), name != required);
        }
    }
}

#[test]
fn a_number_that_is_not_known_satisfies_no_minimum_not_even_zero() {
    let unknown = Attributes::default();
    let mut fleet = Fleet::default();
    let position = fleet.push(&unknown).unwrap();
    let minima = [
        Requirements {
            min_cpu: Some(Frequency::from_mhz(0)),
            ..Requirements::default()
        },
        Requirements {
            min_memory: Some(Memory::from_mb(0)),
            ..Requirements::default()
        },
    ];
    for requirements in minima {
        let verdict = audit(&requirements, &unknown, None, NOW, MAX_READING_AGE_MS);
        assert_ne!(verdict, Verdict::Permit);
        assert!(!fleet.compile(&requirements).permits(position, None));
    }
}

#[test]
fn a_value_too_many_is_refused_and_changes_nothing() {
    const MOST: usize = 65_535;
    let name = |number: usize| Name::new(&format!("n{number}")).unwrap();
    let country = Country::from_code("jp");
    // An edge whose `what` is one of many different values.
    type Edge = Box<dyn Fn(usize) -> Attributes>;
    let kinds: [(&str, Edge); 4] = [
        (
            "pairs of country and region",
            Box::new(move |number| Attributes {
                location: country,
                region: Region::new(name(number).as_str()),
                ..Attributes::default()
            }),
        ),
        (
            "sets of organizations",
            Box::new(move |number| Attributes {
                organizations: [name(number)].into(),
                ..Attributes::default()
            }),
        ),
        (
            "manufacturers",
            Box::new(move |number| Attributes {
                manufacturer: Some(name(number)),
                ..Attributes::default()
            }),
        ),
        (
            "sets of tools, accessories and frameworks",
            Box::new(move |number| Attributes {
                ai_frameworks: [name(number)].into(),
                ..Attributes::default()
            }),
        ),
    ];
    for (what, edge) in kinds {
        let mut fleet = Fleet::default();
        let first = fleet.push(&edge(0)).unwrap();
        let mut last = first;
        for number in 1..MOST {
            last = fleet.push(&edge(number)).unwrap();
        }
        assert_eq!(
            fleet.push(&edge(MOST)).unwrap_err().to_string(),
            format!("more than 65,535 different {what} in one fleet")
        );
        // One that is known already still finds its number, and the place after the last.
        let again = fleet.push(&edge(0)).unwrap();
        assert!(first < last && last < again);
        let wanted = edge(MOST - 1);
        let row = format!(
            "{} {} {} * * * * * * * {}",
            wanted
                .region
                .map_or("*".to_owned(), |region| format!("region:{region}")),
            wanted
                .organizations
                .first()
                .map_or("*".to_owned(), Name::to_string),
            wanted
                .manufacturer
                .map_or("*".to_owned(), |name| name.to_string()),
            wanted
                .ai_frameworks
                .first()
                .map_or("*".to_owned(), Name::to_string),
        );
        let requirements = requirements_from_compact(&row).unwrap();
        let compiled = fleet.compile(&requirements);
        assert!(compiled.permits(last, None), "{row}");
        assert!(!compiled.permits(first, None), "{row}");
        assert!(!compiled.permits(again, None), "{row}");
    }
}
