//! A second reading of the table of elements, straight from the words as they are written:
//! texts, lists split at commas, decimals as floating-point numbers. Slow and plain; it shares
//! nothing with `audit` but the paper.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use carnet_core::policy::{Verdict, attributes_from_compact, audit, requirements_from_compact};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::written::{self, MAX_READING_AGE_MS, NOW, WrittenReading};

/// The paper's names of the elements that are not satisfied, by the cells of two compact rows.
fn denied(
    requirements: &[String],
    attributes: &[String],
    reading: Option<&WrittenReading>,
) -> Vec<&'static str> {
    let [
        c_dal,
        c_dao,
        c_hrh,
        c_hrt,
        c_hrcu,
        c_hrmu,
        c_hrc,
        c_hrm,
        c_hrgpu,
        c_hrac,
        c_hraf,
    ] = requirements
    else {
        panic!("eleven elements");
    };
    let [
        region,
        e_dal,
        e_dao,
        e_hrh,
        e_hrt,
        e_hrc,
        e_hrm,
        e_hrgpu,
        e_hrac,
        e_hraf,
    ] = attributes
    else {
        panic!("ten attributes");
    };
    let counts = |reading: &&WrittenReading| (-1_000..=60_000).contains(&reading.age_ms);
    let cpu = reading.filter(counts).map_or("-", |reading| &reading.cpu);
    let memory = reading
        .filter(counts)
        .map_or("-", |reading| &reading.memory);
    let satisfied = [
        ("cDAl", is_at_an_allowed_place(c_dal, e_dal, region)),
        ("cDAo", is_allowed(c_dao, e_dao)),
        ("cHRh", is_allowed(c_hrh, e_hrh)),
        ("cHRt", has_all(c_hrt, e_hrt)),
        ("cHRcu", compares(c_hrcu, cpu, |max, used| used <= max)),
        ("cHRmu", compares(c_hrmu, memory, |max, used| used <= max)),
        ("cHRc", compares(c_hrc, e_hrc, |min, has| has >= min)),
        ("cHRm", compares(c_hrm, e_hrm, |min, has| has >= min)),
        ("cHRgpu", is_yes(e_hrgpu) || !is_yes(c_hrgpu)),
        ("cHRac", has_all(c_hrac, e_hrac)),
        ("cHRaf", has_all(c_hraf, e_hraf)),
    ];
    satisfied
        .into_iter()
        .filter(|(_, satisfied)| !satisfied)
        .map(|(element, _)| element)
        .collect()
}

fn is_considered(requirement: &str) -> bool {
    requirement != "*" && requirement != "-"
}

fn is_known(attribute: &str) -> bool {
    attribute != "-" && attribute.to_lowercase() != "na"
}

fn is_yes(text: &str) -> bool {
    ["yes", "true"].contains(&text.to_lowercase().as_str())
}

/// The names and the exclusions of an allow-list.
fn names_and_exclusions(list: &str) -> (Vec<&str>, Vec<&str>) {
    let (excluded, named): (Vec<&str>, Vec<&str>) = list
        .split(',')
        .filter(|entry| *entry != "*")
        .partition(|entry| entry.starts_with('-'));
    let excluded = excluded.iter().map(|entry| &entry[1..]).collect();
    (named, excluded)
}

fn is_at_an_allowed_place(list: &str, country: &str, region: &str) -> bool {
    if !is_considered(list) {
        return true;
    }
    let same_country =
        |entry: &str| is_known(country) && entry.to_lowercase() == country.to_lowercase();
    let same_region = |entry: &str| is_known(region) && entry == format!("region:{region}");
    let (named, excluded) = names_and_exclusions(list);
    for entry in excluded {
        let known = if entry.starts_with("region:") {
            is_known(region)
        } else {
            is_known(country)
        };
        if !known || same_country(entry) || same_region(entry) {
            return false;
        }
    }
    named.is_empty()
        || named
            .iter()
            .any(|entry| same_country(entry) || same_region(entry))
}

/// `values`: all of them, where there are several.
fn is_allowed(list: &str, values: &str) -> bool {
    let (named, excluded) = if is_considered(list) {
        names_and_exclusions(list)
    } else {
        (Vec::new(), Vec::new())
    };
    if named.is_empty() && excluded.is_empty() {
        return true;
    }
    is_known(values)
        && values
            .split(',')
            .all(|value| (named.is_empty() || named.contains(&value)) && !excluded.contains(&value))
}

fn has_all(required: &str, has: &str) -> bool {
    !is_considered(required)
        || required
            .split(',')
            .all(|name| is_known(has) && has.split(',').any(|other| other == name))
}

fn compares(requirement: &str, attribute: &str, holds: fn(f64, f64) -> bool) -> bool {
    let number = |text: &str| text.parse::<f64>().expect("a number");
    !is_considered(requirement)
        || (is_known(attribute) && holds(number(requirement), number(attribute)))
}

/// The paper's names of the elements that `audit` denies.
fn audited(
    requirements: &[String],
    attributes: &[String],
    reading: Option<&WrittenReading>,
) -> Vec<&'static str> {
    let verdict = audit(
        &requirements_from_compact(&requirements.join(" ")).unwrap(),
        &attributes_from_compact(&attributes.join(" ")).unwrap(),
        reading.map(WrittenReading::utilization).as_ref(),
        NOW,
        MAX_READING_AGE_MS,
    );
    match verdict {
        Verdict::Permit => Vec::new(),
        Verdict::Deny(reasons) => reasons
            .iter()
            .map(|reason| reason.element.paper_name())
            .collect(),
    }
}

#[test]
fn the_audit_denies_what_the_model_denies() {
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 10_000,
        source_file: Some(file!()),
        ..ProptestConfig::default()
    });
    let input = (
        written::requirements(),
        written::attributes(),
        written::reading(),
    );
    let permitted = Cell::new(0);
    let denying = RefCell::new(BTreeSet::new());
    runner
        .run(&input, |(requirements, attributes, reading)| {
            let expected = denied(&requirements, &attributes, reading.as_ref());
            let found = audited(&requirements, &attributes, reading.as_ref());
            prop_assert_eq!(&found, &expected);
            permitted.set(permitted.get() + u32::from(expected.is_empty()));
            denying.borrow_mut().extend(expected);
            Ok(())
        })
        .unwrap();
    // What is made up is neither all denied nor all permitted: else nothing was compared.
    assert!(permitted.get() > 20, "{permitted:?}");
    assert_eq!(denying.borrow().len(), 11, "{denying:?}");
}
