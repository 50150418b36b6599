//! What may be written: compact rows, JSON, TOML and CSV, which say the same of the same policy.

use std::collections::BTreeSet;
use std::fmt::Debug;

use carnet_core::policy::{
    AllowList, Attributes, Country, Element, Fault, Faults, Frequency, Location, Memory, Name,
    Percent, Region, Requirements, attributes_from_compact, attributes_from_csv,
    attributes_from_json, attributes_from_toml, requirements_from_compact, requirements_from_csv,
    requirements_from_json, requirements_from_toml,
};
use proptest::collection::btree_set;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use crate::written::{self, attribute_words, requirement_words};

/// What every format made of one policy, by the format's name.
type Read<T> = Vec<(&'static str, Result<T, Faults>)>;

/// The cells of a row under `words`, as JSON or TOML texts.
fn object(words: &[&str], cells: &[String], value: impl Fn(&str) -> Value) -> Value {
    let fields = words.iter().zip(cells);
    let fields: Map<String, Value> = fields
        .map(|(word, cell)| ((*word).to_owned(), value(cell)))
        .collect();
    Value::Object(fields)
}

fn as_text(cell: &str) -> Value {
    json!(cell)
}

fn as_list(cell: &str) -> Value {
    cell.split(',').collect::<Vec<_>>().into()
}

/// TOML of an object: JSON's texts, numbers and lists are TOML's as well.
fn toml(object: &Value) -> String {
    let fields = object.as_object().unwrap().iter();
    fields
        .map(|(word, value)| format!("{word} = {value}\n"))
        .collect()
}

/// A file of one row, which is called `row`.
fn csv(words: &[&str], cells: &[String]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let header = std::iter::once("name").chain(words.iter().copied());
    writer.write_record(header).unwrap();
    let row = std::iter::once("row").chain(cells.iter().map(String::as_str));
    writer.write_record(row).unwrap();
    String::from_utf8(writer.into_inner().unwrap()).unwrap()
}

fn read_requirements(cells: &[String]) -> Read<Requirements> {
    let words = requirement_words();
    let paper = Element::ALL.map(Element::paper_name);
    let (texts, lists) = (
        object(&words, cells, as_text),
        object(&words, cells, as_list),
    );
    let from_csv = |words: &[&str]| {
        requirements_from_csv(&csv(words, cells)).map(|mut rows| {
            let (name, requirements) = rows.remove(0);
            assert_eq!((name.as_str(), rows.len()), ("row", 0));
            requirements
        })
    };
    vec![
        ("compact", requirements_from_compact(&cells.join(" "))),
        ("JSON of texts", requirements_from_json(&texts)),
        ("JSON of lists", requirements_from_json(&lists)),
        ("TOML of texts", requirements_from_toml(&toml(&texts))),
        ("TOML of lists", requirements_from_toml(&toml(&lists))),
        ("CSV with our words", from_csv(&words)),
        ("CSV with the paper's names", from_csv(&paper)),
    ]
}

fn read_attributes(cells: &[String]) -> Read<Attributes> {
    let words = attribute_words();
    let paper = Attributes::COLUMNS.map(|(_, paper)| paper);
    let (texts, lists) = (
        object(&words, cells, as_text),
        object(&words, cells, as_list),
    );
    let from_csv = |words: &[&str]| {
        attributes_from_csv(&csv(words, cells)).map(|mut rows| {
            let row = rows.remove(0);
            assert_eq!((row.name.as_str(), rows.len()), ("row", 0));
            row.attributes
        })
    };
    vec![
        ("compact", attributes_from_compact(&cells.join(" "))),
        ("JSON of texts", attributes_from_json(&texts)),
        ("JSON of lists", attributes_from_json(&lists)),
        ("TOML of texts", attributes_from_toml(&toml(&texts))),
        ("TOML of lists", attributes_from_toml(&toml(&lists))),
        ("CSV with our words", from_csv(&words)),
        ("CSV with the paper's names", from_csv(&paper)),
    ]
}

/// All formats made the same of it, but for the places of the faults. Faults come in the order
/// of the fields in all formats.
fn assert_the_same<T: PartialEq + Debug>(read: Read<T>) -> Result<(), TestCaseError> {
    let without_places = |faults: Faults| {
        faults
            .0
            .into_iter()
            .map(|fault| Fault {
                place: String::new(),
                ..fault
            })
            .collect::<Vec<_>>()
    };
    let mut read = read
        .into_iter()
        .map(|(format, result)| (format, result.map_err(without_places)));
    let (first, expected) = read.next().unwrap();
    for (format, result) in read {
        prop_assert_eq!(&result, &expected, "{} and {}", format, first);
    }
    Ok(())
}

fn assert_read_back<T: PartialEq + Debug>(
    read: Result<T, Faults>,
    expected: &T,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(read.as_ref(), Ok(expected));
    Ok(())
}

/// Cells that are wrong in some field or in all of them.
fn wrong_cell() -> impl Strategy<Value = String> {
    select(vec![
        "zz",
        "japan",
        "jp,jp",
        "jp,-jp,us,-us",
        "*,jp",
        "*,*",
        ",",
        "x,,y",
        "-,-",
        "--",
        "na,na",
        "é",
        "region:",
        "region:-",
        "-region:",
        "101",
        "1.",
        ".5",
        "-1",
        "+1",
        "0",
        "1.0001",
        "1e2",
        "99999999999999999999",
        "maybe",
        "yes,no",
        "lxc,kvm",
    ])
    .prop_map(str::to_owned)
}

/// Rows of which some cells are replaced by wrong ones.
fn spoilt(rows: impl Strategy<Value = Vec<String>>) -> impl Strategy<Value = Vec<String>> {
    rows.prop_flat_map(|row| {
        row.into_iter()
            .map(|cell| prop_oneof![3 => Just(cell), 1 => wrong_cell()])
            .collect::<Vec<_>>()
    })
}

fn country() -> impl Strategy<Value = Country> {
    let codes = rust_iso3166::ALL.iter().map(|country| country.alpha2);
    select(codes.collect::<Vec<_>>()).prop_map(|code| Country::from_code(code).unwrap())
}

fn name() -> impl Strategy<Value = Name> {
    "[A-Za-z0-9][A-Za-z0-9._-]{0,62}".prop_filter_map("`na` is no name", |text| Name::new(&text))
}

fn location() -> impl Strategy<Value = Location> {
    prop_oneof![
        country().prop_map(Location::Country),
        name().prop_map(|name| Location::Region(Region::new(name.as_str()).unwrap())),
    ]
}

fn allow_list<T: Ord + Clone + Debug>(
    value: impl Strategy<Value = T>,
) -> impl Strategy<Value = AllowList<T>> {
    btree_set((value, any::<bool>()), 0..6).prop_map(|values| {
        let (named, excluded): (BTreeSet<_>, BTreeSet<_>) =
            values.into_iter().partition(|(_, named)| *named);
        let named: BTreeSet<T> = named.into_iter().map(|(value, _)| value).collect();
        let excluded = excluded.into_iter().map(|(value, _)| value);
        let excluded = excluded.filter(|value| !named.contains(value)).collect();
        AllowList::new(named, excluded).unwrap()
    })
}

fn names() -> impl Strategy<Value = BTreeSet<Name>> {
    btree_set(name(), 0..5)
}

fn frequency() -> impl Strategy<Value = Frequency> {
    (1..=65_535_u32).prop_map(Frequency::from_mhz)
}

fn memory() -> impl Strategy<Value = Memory> {
    (1..=4_000_000_000_u32).prop_map(Memory::from_mb)
}

fn percent() -> impl Strategy<Value = Percent> {
    (0..=10_000_u16).prop_map(|hundredths| Percent::from_hundredths(hundredths).unwrap())
}

fn any_requirements() -> impl Strategy<Value = Requirements> {
    let maybe = proptest::option::of::<BoxedStrategy<_>>;
    (
        (
            allow_list(location()),
            allow_list(name()),
            allow_list(name()),
        ),
        maybe(name().boxed()),
        (
            proptest::option::of(percent()),
            proptest::option::of(percent()),
        ),
        (
            proptest::option::of(frequency()),
            proptest::option::of(memory()),
        ),
        any::<bool>(),
        (names(), names()),
    )
        .prop_map(
            |(lists, virtualization, max, min, ai_support, sets)| Requirements {
                allowed_locations: lists.0,
                allowed_organizations: lists.1,
                allowed_manufacturers: lists.2,
                virtualization,
                max_cpu: max.0,
                max_memory: max.1,
                min_cpu: min.0,
                min_memory: min.1,
                ai_support,
                ai_accessories: sets.0,
                ai_frameworks: sets.1,
            },
        )
}

/// Of every country but Namibia, whose code reads as "not known".
fn any_attributes() -> impl Strategy<Value = Attributes> {
    let country = country().prop_filter("`na` is not known", |country| country.code() != "na");
    let region = name().prop_map(|name| Region::new(name.as_str()).unwrap());
    (
        (proptest::option::of(country), proptest::option::of(region)),
        (names(), proptest::option::of(name())),
        names(),
        (
            proptest::option::of(frequency()),
            proptest::option::of(memory()),
        ),
        any::<Option<bool>>(),
        (names(), names()),
    )
        .prop_map(
            |(place, makers, virtualization, size, ai_support, sets)| Attributes {
                location: place.0,
                region: place.1,
                organizations: makers.0,
                manufacturer: makers.1,
                virtualization,
                cpu: size.0,
                memory: size.1,
                ai_support,
                ai_accessories: sets.0,
                ai_frameworks: sets.1,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_format_says_the_same_of_requirements(cells in spoilt(written::requirements())) {
        assert_the_same(read_requirements(&cells))?;
    }

    #[test]
    fn every_format_says_the_same_of_attributes(cells in spoilt(written::attributes())) {
        assert_the_same(read_attributes(&cells))?;
    }

    #[test]
    fn requirements_are_read_back_as_they_were(requirements in any_requirements()) {
        let json = requirements.to_json();
        assert_read_back(requirements_from_json(&json), &requirements)?;
        let sent: Value = serde_json::from_str(&json.to_string()).unwrap();
        assert_read_back(requirements_from_json(&sent), &requirements)?;
        assert_read_back(requirements_from_toml(&toml(&json)), &requirements)?;
        let row = requirements.to_compact();
        let cells: Vec<String> = row.split(' ').map(str::to_owned).collect();
        for (_, read) in read_requirements(&cells) {
            assert_read_back(read, &requirements)?;
        }
    }

    #[test]
    fn attributes_are_read_back_as_they_were(attributes in any_attributes()) {
        let json = attributes.to_json();
        assert_read_back(attributes_from_json(&json), &attributes)?;
        let sent: Value = serde_json::from_str(&json.to_string()).unwrap();
        assert_read_back(attributes_from_json(&sent), &attributes)?;
        assert_read_back(attributes_from_toml(&toml(&json)), &attributes)?;
        let row = attributes.to_compact();
        let cells: Vec<String> = row.split(' ').map(str::to_owned).collect();
        for (_, read) in read_attributes(&cells) {
            assert_read_back(read, &attributes)?;
        }
    }
}

#[test]
fn a_policy_is_the_same_however_its_values_are_written() {
    let expected = requirements_from_compact("jp,us -caB * lxc 60 50 1.6 4 yes tpu *").unwrap();
    let json = json!({
        "allowed_locations": " us , JP ", "allowed_organizations": [" -caB ", "*"],
        "allowed_manufacturers": null, "virtualization": ["lxc"], "max_cpu_percent": 60.0,
        "max_memory_percent": "50.00", "min_cpu_ghz": 1.6, "min_memory_gb": 4,
        "ai_support": true, "ai_accessories": "tpu", "ai_frameworks": [],
    });
    assert_eq!(requirements_from_json(&json).as_ref(), Ok(&expected));
    let toml = "
        allowed_locations = 'us,jp' # either
        allowed_organizations = [\"*\", \" -caB \"]
        virtualization = \"lxc\"
        max_cpu_percent = 60.00
        max_memory_percent = 50
        min_cpu_ghz = 1.600
        min_memory_gb = \"4\"
        ai_support = true
        ai_accessories = [\"tpu\"]
        ai_frameworks = \"-\"";
    assert_eq!(requirements_from_toml(toml).as_ref(), Ok(&expected));
    let row = "\tUS,JP  -caB - lxc 060 50.0 1.60 4 TRUE tpu -\n";
    assert_eq!(requirements_from_compact(row).as_ref(), Ok(&expected));
    let csv = "\u{feff}cHRac , name,min_memory_gb,cDAl,cDAo,cHRt,cHRcu,cHRmu,cHRc,cHRgpu,edge\r\n\
               tpu,App1,4,\"jp, us\",-caB,lxc,60,50,1.6,yes,Edge1\r\n";
    assert_eq!(
        requirements_from_csv(csv),
        Ok(vec![("App1".to_owned(), expected)])
    );
}

#[test]
fn what_is_left_out_is_not_considered_and_not_known() {
    let row = ["*"; 11].join(" ");
    let asks_for_nothing = Requirements::default();
    assert_eq!(
        requirements_from_compact(&row).as_ref(),
        Ok(&asks_for_nothing)
    );
    assert_eq!(
        requirements_from_json(&json!({})).as_ref(),
        Ok(&asks_for_nothing)
    );
    assert_eq!(requirements_from_toml("").as_ref(), Ok(&asks_for_nothing));
    assert_eq!(
        requirements_from_csv("name\nApp1\n"),
        Ok(vec![("App1".to_owned(), asks_for_nothing)])
    );
    let nothing_known = Attributes::default();
    for unknown in ["-", "na", "NA"] {
        let row = [unknown; 10].join(" ");
        assert_eq!(attributes_from_compact(&row).as_ref(), Ok(&nothing_known));
    }
    assert_eq!(
        attributes_from_json(&json!({})).as_ref(),
        Ok(&nothing_known)
    );
    assert_eq!(attributes_from_toml("").as_ref(), Ok(&nothing_known));
    let rows = attributes_from_csv("name\nEdge1\n").unwrap();
    assert_eq!(rows[0].attributes, nothing_known);
}

#[test]
fn every_number_that_can_be_kept_is_read_as_it_is_written() {
    let with = |field: &str, value: String| {
        requirements_from_json(&json!({ field: value })).unwrap_or_else(|faults| panic!("{faults}"))
    };
    for hundredths in 0..=10_000_u16 {
        let written = format!("{}.{:02}", hundredths / 100, hundredths % 100);
        let read = with("max_cpu_percent", written).max_cpu.unwrap();
        assert_eq!(read.hundredths(), hundredths);
        let again = with("max_memory_percent", read.to_string()).max_memory;
        assert_eq!(again, Some(read));
    }
    for mhz in 1..=65_535_u32 {
        let written = format!("{}.{:03}", mhz / 1_000, mhz % 1_000);
        let read = with("min_cpu_ghz", written).min_cpu.unwrap();
        assert_eq!(read.mhz(), mhz);
        let again = with("min_memory_gb", read.to_string()).min_memory.unwrap();
        assert_eq!(again.mb(), mhz);
    }
}

#[test]
fn numbers_are_shown_without_zeros_at_their_end() {
    let shown = |mhz| Frequency::from_mhz(mhz).to_string();
    assert_eq!(shown(2_600), "2.6");
    assert_eq!(shown(2_000), "2");
    assert_eq!(shown(20_000), "20");
    assert_eq!(shown(2_060), "2.06");
    assert_eq!(shown(6), "0.006");
    let shown = |hundredths| Percent::from_hundredths(hundredths).unwrap().to_string();
    assert_eq!(shown(0), "0");
    assert_eq!(shown(5), "0.05");
    assert_eq!(shown(50), "0.5");
    assert_eq!(shown(10_000), "100");
    assert_eq!(Percent::from_hundredths(10_001), None);
}

#[test]
fn the_countries_are_those_of_iso_3166_and_no_others() {
    let known: BTreeSet<String> = rust_iso3166::ALL
        .iter()
        .map(|country| country.alpha2.to_lowercase())
        .collect();
    assert_eq!(known.len(), 249);
    for first in 'a'..='z' {
        for second in 'a'..='z' {
            let code = format!("{first}{second}");
            for written in [code.clone(), code.to_uppercase()] {
                let read = requirements_from_json(&json!({"allowed_locations": [written]}));
                let expected = known.contains(&code).then(|| code.clone());
                assert_eq!(
                    read.ok().map(|read| read.allowed_locations.to_string()),
                    expected
                );
            }
        }
    }
}

#[test]
fn a_name_is_of_letters_digits_and_some_marks_and_not_too_long() {
    let longest = "n".repeat(63);
    for name in ["a", "7", "a.b_c-d", "A-", &longest, "nano", "n-a"] {
        assert_eq!(Name::new(name).unwrap().as_str(), name);
    }
    let too_long = "n".repeat(64);
    for text in [
        "", "-a", ".a", "_a", "a b", "a,b", "a:b", "a/b", "é", "aé", "na", "NA", &too_long,
    ] {
        assert_eq!(Name::new(text), None, "{text}");
    }
}
