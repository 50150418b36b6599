//! What is said of everything that may not be written: all of it at once, each with its place,
//! what stood there, what may stand there, and what was probably meant. Nothing panics.

use std::fmt::Debug;

use carnet_core::policy::{
    Attributes, Faults, MAX_LIST, Requirements, attributes_from_compact, attributes_from_csv,
    attributes_from_json, attributes_from_toml, nearest, requirements_from_compact,
    requirements_from_csv, requirements_from_json, requirements_from_toml,
};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::written::{attribute_words, requirement_words};

const NAME: &str =
    "a name: letters, digits, `.`, `_` and `-`, beginning with a letter or digit, at most 63";
const LOCATION_LIST: &str = "a country's code of ISO 3166-1 alpha-2, such as `jp`, or a region \
    of ours, such as `region:B`; `-` before it: anything but it; or `*` alone: anything";
const NAME_LIST: &str = "a name: letters, digits, `.`, `_` and `-`, beginning with a letter or \
    digit, at most 63; `-` before it: anything but it; or `*` alone: anything";
const PERCENT: &str = "a number from 0 to 100 with at most 2 decimals";
const GHZ: &str = "gigahertz, from 0.001 to 65.535, with at most 3 decimals";
const GB: &str = "gigabytes, from 0.001 to 4,000,000, with at most 3 decimals";
const OR_ANY: &str = "or `*`: not considered";
const OR_NONE: &str = "or `-`: none or not known";
const REQUIREMENTS: &str = "allowed_locations, allowed_organizations, allowed_manufacturers, \
    virtualization, max_cpu_percent, max_memory_percent, min_cpu_ghz, min_memory_gb, ai_support, \
    ai_accessories, ai_frameworks";
const ATTRIBUTES: &str = "region, location, organizations, manufacturer, virtualization, \
    cpu_ghz, memory_gb, ai_support, ai_accessories, ai_frameworks";

fn said<T: Debug>(read: Result<T, Faults>) -> String {
    read.expect_err("faults").to_string()
}

fn lines(lines: &[&str]) -> String {
    lines.join("\n")
}

#[test]
fn of_a_row_every_fault_is_told_at_once() {
    let row = "japan,-uk,xx ca/B,-x! dé lx,c 100.01 50.001 fast 0 maybe a,,-b *,x";
    assert_eq!(
        said(requirements_from_compact(row)),
        lines(&[
            "field 1, allowed_locations (cDAl): not a country: `japan`; did you mean `jp`?",
            &format!("  allowed: {LOCATION_LIST}"),
            "field 1, allowed_locations (cDAl): not a country: `uk`; did you mean `gb`?",
            &format!("  allowed: {LOCATION_LIST}"),
            "field 1, allowed_locations (cDAl): not a country: `xx`",
            &format!("  allowed: {LOCATION_LIST}"),
            "field 2, allowed_organizations (cDAo): not a name: `ca/B`",
            &format!("  allowed: {NAME_LIST}"),
            "field 2, allowed_organizations (cDAo): not a name: `x!`",
            &format!("  allowed: {NAME_LIST}"),
            "field 3, allowed_manufacturers (cHRh): not a name: `dé`",
            &format!("  allowed: {NAME_LIST}"),
            "field 4, virtualization (cHRt): several values where one may stand: `lx,c`",
            &format!("  allowed: {NAME}; {OR_ANY}"),
            "field 5, max_cpu_percent (cHRcu): a number out of range: `100.01`",
            &format!("  allowed: {PERCENT}; {OR_ANY}"),
            "field 6, max_memory_percent (cHRmu): more decimals than can be kept: `50.001`",
            &format!("  allowed: {PERCENT}; {OR_ANY}"),
            "field 7, min_cpu_ghz (cHRc): not a number: `fast`",
            &format!("  allowed: {GHZ}; {OR_ANY}"),
            "field 8, min_memory_gb (cHRm): a number out of range: `0`",
            &format!("  allowed: {GB}; {OR_ANY}"),
            "field 9, ai_support (cHRgpu): neither yes nor no: `maybe`",
            &format!("  allowed: `yes` or `no`, true or false; {OR_ANY}"),
            "field 10, ai_accessories (cHRac): an empty entry",
            &format!("  allowed: {NAME}; {OR_ANY}"),
            "field 10, ai_accessories (cHRac): not a name: `-b`",
            &format!("  allowed: {NAME}; {OR_ANY}"),
            "field 11, ai_frameworks (cHRaf): not a name: `*`",
            &format!("  allowed: {NAME}; {OR_ANY}"),
        ])
    );
    let row = "B! region:B caA,* deA,deB lxc,na 65.536 4000000.001 perhaps tpu,-npu *";
    assert_eq!(
        said(attributes_from_compact(row)),
        lines(&[
            "field 2, location (eDAl): not a country: `region:B`",
            &format!("  allowed: a country's code of ISO 3166-1 alpha-2, such as `jp`; {OR_NONE}"),
            "field 1, region: not a name: `B!`",
            &format!("  allowed: {NAME}; {OR_NONE}"),
            "field 3, organizations (eDAo): not a name: `*`",
            &format!("  allowed: {NAME}; {OR_NONE}"),
            "field 4, manufacturer (eHRh): several values where one may stand: `deA,deB`",
            &format!("  allowed: {NAME}; {OR_NONE}"),
            "field 5, virtualization (eHRt): not a name: `na`",
            &format!("  allowed: {NAME}; {OR_NONE}"),
            "field 6, cpu_ghz (eHRc): a number out of range: `65.536`",
            &format!("  allowed: {GHZ}; {OR_NONE}"),
            "field 7, memory_gb (eHRm): a number out of range: `4000000.001`",
            &format!("  allowed: {GB}; {OR_NONE}"),
            "field 8, ai_support (eHRgpu): neither yes nor no: `perhaps`",
            &format!("  allowed: `yes` or `no`, true or false; {OR_NONE}"),
            "field 9, ai_accessories (eHRac): not a name: `-npu`",
            &format!("  allowed: {NAME}; {OR_NONE}"),
            "field 10, ai_frameworks (eHRaf): not a name: `*`",
            &format!("  allowed: {NAME}; {OR_NONE}"),
        ])
    );
}

#[test]
fn a_row_with_too_few_or_too_many_fields_says_which_there_are() {
    let elements = "allowed_locations (cDAl), allowed_organizations (cDAo), \
        allowed_manufacturers (cHRh), virtualization (cHRt), max_cpu_percent (cHRcu), \
        max_memory_percent (cHRmu), min_cpu_ghz (cHRc), min_memory_gb (cHRm), \
        ai_support (cHRgpu), ai_accessories (cHRac), ai_frameworks (cHRaf)";
    assert_eq!(
        said(requirements_from_compact("jp -caB *\tlxc")),
        format!("row: 4 fields instead of 11: `jp -caB *\u{fffd}lxc`\n  allowed: {elements}")
    );
    assert_eq!(
        said(requirements_from_compact(" ")),
        format!("row: 0 fields instead of 11: ` `\n  allowed: {elements}")
    );
    // Spaces inside a list make two fields of it.
    let row = "jp, us * * * * * * * * * *";
    assert_eq!(
        said(requirements_from_compact(row)),
        format!("row: 12 fields instead of 11: `{row}`\n  allowed: {elements}")
    );
    let attributes = "region (region), location (eDAl), organizations (eDAo), \
        manufacturer (eHRh), virtualization (eHRt), cpu_ghz (eHRc), memory_gb (eHRm), \
        ai_support (eHRgpu), ai_accessories (eHRac), ai_frameworks (eHRaf)";
    assert_eq!(
        said(attributes_from_compact("- - - - - - - - - - -")),
        format!("row: 11 fields instead of 10: `- - - - - - - - - - -`\n  allowed: {attributes}")
    );
}

#[test]
fn a_list_that_contradicts_itself_is_told_by_each_value() {
    let row = "jp,-jp,-us,us,fr caB,-caB *,deA -,lxc * * * * * * *";
    assert_eq!(
        said(requirements_from_compact(row)),
        lines(&[
            "field 1, allowed_locations (cDAl): both allowed and excluded: `jp`",
            "  allowed: one of the two",
            "field 1, allowed_locations (cDAl): both allowed and excluded: `us`",
            "  allowed: one of the two",
            "field 2, allowed_organizations (cDAo): both allowed and excluded: `caB`",
            "  allowed: one of the two",
            "field 3, allowed_manufacturers (cHRh): `*` beside names: the names would mean \
             nothing: `*,deA`",
            &format!("  allowed: {NAME_LIST}"),
            "field 4, virtualization (cHRt): several values where one may stand: `-,lxc`",
            &format!("  allowed: {NAME}; {OR_ANY}"),
        ])
    );
}

#[test]
fn of_json_every_fault_is_told_at_once() {
    let value = json!({
        "": 1,
        "allowed_location": "jp",
        "ai_accessories": ["tpu", 5, null, "-x"],
        "ai_support": 1,
        "allowed_locations": false,
        "allowed_manufacturers": {"deA": true},
        "allowed_organizations": [],
        "cHRm": 4,
        "max_cpu_percent": true,
        "max_memory_percent": -1,
        "min_cpu_ghz": 1e-9,
        "nothing like it": 1,
        "virtualization": 5,
    });
    assert_eq!(
        said(requirements_from_json(&value)),
        lines(&[
            "policy: there is no such field",
            &format!("  allowed: {REQUIREMENTS}"),
            "ai_accessories: an entry that is not text: `5`",
            "  allowed: text",
            "ai_accessories: an entry that is not text: `null`",
            "  allowed: text",
            "ai_support: of the wrong kind: `1`",
            "  allowed: true or false, or text",
            "allowed_location: there is no such field: `allowed_location`; did you mean \
             `allowed_locations`?",
            &format!("  allowed: {REQUIREMENTS}"),
            "allowed_locations: of the wrong kind: `false`",
            "  allowed: text, or a list of texts",
            "allowed_manufacturers: of the wrong kind: `{\"deA\":true}`",
            "  allowed: text, or a list of texts",
            "cHRm: there is no such field: `cHRm`; did you mean `min_memory_gb`?",
            &format!("  allowed: {REQUIREMENTS}"),
            "max_cpu_percent: of the wrong kind: `true`",
            "  allowed: a number, or text",
            "nothing like it: there is no such field: `nothing like it`",
            &format!("  allowed: {REQUIREMENTS}"),
            "virtualization: of the wrong kind: `5`",
            "  allowed: text, or a list of texts",
            "allowed_organizations: an empty list: nothing would be allowed",
            &format!("  allowed: {NAME_LIST}"),
            "max_memory_percent: not a number: `-1`",
            &format!("  allowed: {PERCENT}; {OR_ANY}"),
            "min_cpu_ghz: not a number: `1e-9`",
            &format!("  allowed: {GHZ}; {OR_ANY}"),
            "ai_accessories: not a name: `-x`",
            &format!("  allowed: {NAME}; {OR_ANY}"),
        ])
    );
    for value in [json!(null), json!("jp"), json!(["jp"]), json!(5)] {
        let expected = format!(
            "policy: not an object: `{value}`\n  allowed: an object with the fields of a policy"
        );
        assert_eq!(said(requirements_from_json(&value)), expected);
        assert_eq!(said(attributes_from_json(&value)), expected);
    }
}

#[test]
fn false_is_not_norway_and_a_number_is_no_name() {
    let text_only = "  allowed: text, or a list of texts";
    for field in ["location", "region", "manufacturer", "organizations"] {
        for (value, kind) in [(json!(false), "boolean"), (json!(5), "integer")] {
            assert_eq!(
                said(attributes_from_json(&json!({ field: value }))),
                format!("{field}: of the wrong kind: `{value}`\n{text_only}")
            );
            assert_eq!(
                said(attributes_from_toml(&format!("{field} = {value}"))),
                format!("line 1, column 1, {field}: of the wrong kind: `{kind}`\n{text_only}")
            );
        }
    }
    // A list with nothing but such entries is wrong, and not empty as well.
    assert_eq!(
        said(requirements_from_json(
            &json!({"allowed_locations": [false]})
        )),
        "allowed_locations: an entry that is not text: `false`\n  allowed: text"
    );
    assert_eq!(
        said(requirements_from_toml("allowed_locations = [false]")),
        "line 1, column 22: an entry that is not text: `boolean`\n  allowed: text"
    );
}

#[test]
fn of_toml_every_fault_has_its_line_and_column() {
    let text = "# é\n\
        allowed_locations = [\"jp\", 5, \"Germny\"]\n  \
        max_cpu = 60\n\
        max_cpu_percent = 101\n\
        min_cpu_ghz = 0x10\n\
        min_memory_gb = nan\n\
        virtualization = 1979-05-27\n\
        \"é\".x = 1\n\
        cDAo = '-caB'\n\
        allowed_manufacturers = []\n\
        [max_memory_percent]\n\
        x = 1\n";
    assert_eq!(
        said(requirements_from_toml(text)),
        lines(&[
            "line 2, column 28: an entry that is not text: `integer`",
            "  allowed: text",
            "line 9, column 1: there is no such field: `cDAo`; did you mean \
             `allowed_organizations`?",
            &format!("  allowed: {REQUIREMENTS}"),
            "line 3, column 3: there is no such field: `max_cpu`; did you mean \
             `max_cpu_percent`?",
            &format!("  allowed: {REQUIREMENTS}"),
            "line 11, column 2, max_memory_percent: of the wrong kind: `table`",
            "  allowed: a number, or text",
            "line 7, column 1, virtualization: of the wrong kind: `datetime`",
            "  allowed: text, or a list of texts",
            "line 8, column 1: there is no such field: `é`",
            &format!("  allowed: {REQUIREMENTS}"),
            "line 2, column 1, allowed_locations: not a country: `Germny`; did you mean `de`?",
            &format!("  allowed: {LOCATION_LIST}"),
            "line 10, column 1, allowed_manufacturers: an empty list: nothing would be allowed",
            &format!("  allowed: {NAME_LIST}"),
            "line 4, column 1, max_cpu_percent: a number out of range: `101`",
            &format!("  allowed: {PERCENT}; {OR_ANY}"),
            "line 5, column 1, min_cpu_ghz: not a number: `0x10`",
            &format!("  allowed: {GHZ}; {OR_ANY}"),
            "line 6, column 1, min_memory_gb: not a number: `nan`",
            &format!("  allowed: {GB}; {OR_ANY}"),
        ])
    );
    // Columns are counted in characters.
    assert_eq!(
        said(requirements_from_toml("ai_frameworks = [\"é\", 5]")),
        lines(&[
            "line 1, column 23: an entry that is not text: `integer`",
            "  allowed: text",
            "line 1, column 1, ai_frameworks: not a name: `é`",
            &format!("  allowed: {NAME}; {OR_ANY}"),
        ])
    );
}

#[test]
fn what_is_no_toml_is_told_with_its_line_and_column() {
    let allowed = "  allowed: TOML, as in: allowed_locations = [\"jp\", \"us\"]";
    assert_eq!(
        said(requirements_from_toml(
            "max_cpu_percent = 1\nmax_cpu_percent = 2\n"
        )),
        format!("line 2, column 1: duplicate key\n{allowed}")
    );
    let text = said(requirements_from_toml(
        "max_cpu_percent = 1\nvirtualization = \"lxc\n",
    ));
    assert!(text.starts_with("line 2, column "), "{text}");
    assert!(text.ends_with(allowed), "{text}");
}

#[test]
fn of_csv_every_fault_has_its_line_and_column() {
    let text = "name,cDAl,min_memory_gb,max_cpu,cDAl,allowed_locations,name,edge\n\
        App1,jp,4,60,us,fr,App1,Edge1\n";
    assert_eq!(
        said(requirements_from_csv(text)),
        lines(&[
            "line 1: there is no such field: `max_cpu`; did you mean `max_cpu_percent`?",
            &format!("  allowed: {REQUIREMENTS}"),
            "line 1: a column twice: `cDAl`",
            "  allowed: every column once",
            "line 1: a column twice: `allowed_locations`",
            "  allowed: every column once",
            "line 1: a column twice: `name`",
            "  allowed: every column once",
        ])
    );
    assert_eq!(
        said(attributes_from_csv("edge,eDAl\nEdge1,jp\n")),
        lines(&[
            "line 1: there is no such field: `edge`",
            &format!("  allowed: {ATTRIBUTES}"),
            "line 1: no column `name`",
            "  allowed: a column `name`",
        ])
    );
    assert_eq!(
        said(requirements_from_csv("")),
        "line 1: no column `name`\n  allowed: a column `name`"
    );
    assert_eq!(
        said(requirements_from_csv("\r\n\nnames\n")),
        lines(&[
            "line 3: there is no such field: `names`",
            &format!("  allowed: {REQUIREMENTS}"),
            "line 3: no column `name`",
            "  allowed: a column `name`",
        ])
    );
    // However lines end, and empty ones between them.
    for end in ["\n", "\r\n"] {
        let rows = [
            "",
            "name,cDAl,cHRc",
            "App1,jp,2.2",
            "",
            "",
            "App2,uk,2.2",
            "App3,jp",
            "App4,\"jp,",
            "us\",fast",
            "App5,us,2.2,4",
            "",
            "App6,zz,1",
        ];
        assert_eq!(
            said(requirements_from_csv(&rows.join(end))),
            lines(&[
                "line 6, cDAl: not a country: `uk`; did you mean `gb`?",
                &format!("  allowed: {LOCATION_LIST}"),
                "line 7: 2 fields instead of 3",
                "  allowed: comma-separated values with as many fields as the header",
                "line 8, cHRc: not a number: `fast`",
                &format!("  allowed: {GHZ}; {OR_ANY}"),
                "line 10: 4 fields instead of 3",
                "  allowed: comma-separated values with as many fields as the header",
                "line 12, cDAl: not a country: `zz`",
                &format!("  allowed: {LOCATION_LIST}"),
            ]),
            "{end:?}"
        );
    }
}

#[test]
fn a_number_is_a_decimal_in_its_range_and_nothing_else() {
    let (number, decimals, range) = (
        Some("not a number"),
        Some("more decimals than can be kept"),
        Some("a number out of range"),
    );
    let table = [
        ("max_cpu_percent", "0", None),
        ("max_cpu_percent", "100", None),
        ("max_cpu_percent", "60.010000", None),
        ("max_cpu_percent", "00060", None),
        ("max_cpu_percent", "100.01", range),
        ("max_cpu_percent", "655.37", range),
        ("max_cpu_percent", "99999999999", range),
        ("max_cpu_percent", "60.011", decimals),
        ("max_cpu_percent", "60.001", decimals),
        ("max_cpu_percent", "60.", number),
        ("max_cpu_percent", ".5", number),
        ("max_cpu_percent", ".", number),
        ("max_cpu_percent", "", number),
        ("max_cpu_percent", "+60", number),
        ("max_cpu_percent", "-60", number),
        ("max_cpu_percent", "6e1", number),
        ("max_cpu_percent", "6 0", number),
        ("max_cpu_percent", "60%", number),
        ("max_cpu_percent", "1.2.3", number),
        ("max_cpu_percent", "６０", number),
        ("max_cpu_percent", "inf", number),
        ("min_cpu_ghz", "0.001", None),
        ("min_cpu_ghz", "65.535", None),
        ("min_cpu_ghz", "0", range),
        ("min_cpu_ghz", "0.000", range),
        ("min_cpu_ghz", "65.536", range),
        ("min_cpu_ghz", "0.0009", decimals),
        ("min_memory_gb", "0.001", None),
        ("min_memory_gb", "4000000", None),
        ("min_memory_gb", "0", range),
        ("min_memory_gb", "4000000.001", range),
        ("min_memory_gb", "4294967.296", range),
        ("min_memory_gb", "0.0001", decimals),
        (
            "min_memory_gb",
            "4,000,000",
            Some("several values where one may stand"),
        ),
    ];
    for (field, written, expected) in table {
        let read = requirements_from_json(&json!({ field: written }));
        let problems: Vec<_> = match &read {
            Ok(_) => Vec::new(),
            Err(faults) => faults
                .0
                .iter()
                .map(|fault| fault.problem.as_str())
                .collect(),
        };
        assert_eq!(problems, Vec::from_iter(expected), "{field}: {written}");
    }
}

#[test]
fn the_country_that_was_meant_is_suggested() {
    let suggested = [
        ("japan", Some("jp")),
        ("Japan", Some("jp")),
        ("JPN", Some("jp")),
        ("Germny", Some("de")),
        ("deu", Some("de")),
        ("uk", Some("gb")),
        ("UK", Some("gb")),
        ("england", Some("gb")),
        ("usa", Some("us")),
        ("America", Some("us")),
        ("Korea", Some("kr")),
        ("kor", Some("kr")),
        ("russia", Some("ru")),
        ("taiwan", Some("tw")),
        ("vietnam", Some("vn")),
        ("france", Some("fr")),
        ("Namibia", Some("na")),
        ("xx", None),
        ("eu", None),
        ("ja", None),
        ("x", None),
        ("1234567", None),
        ("jp;us", None),
        ("*jp", None),
    ];
    for (written, expected) in suggested {
        let faults = requirements_from_json(&json!({ "allowed_locations": written })).unwrap_err();
        let [fault] = faults.0.as_slice() else {
            panic!("{written}: {faults}");
        };
        assert_eq!(fault.suggestion.as_deref(), expected, "{written}");
    }
}

#[test]
fn the_nearest_word_is_suggested_and_none_that_is_far() {
    let known = ["Edge1", "Edge12", "gateway"];
    assert_eq!(nearest("edge1", known), Some("Edge1"));
    assert_eq!(nearest("GATEWAY", known), Some("gateway"));
    assert_eq!(nearest("Egde12", known), Some("Edge12"));
    assert_eq!(nearest("getaway", known), Some("gateway"));
    assert_eq!(nearest("xyz", known), None);
    assert_eq!(nearest("", known), None);
    assert_eq!(nearest("Edge1", []), None);
}

#[test]
fn no_more_than_the_beginning_is_repeated_and_no_control_characters() {
    let long = "é".repeat(65);
    assert_eq!(
        said(requirements_from_json(&json!({ "virtualization": long }))),
        format!(
            "virtualization: not a name: `{}…`\n  allowed: {NAME}; {OR_ANY}",
            "é".repeat(64)
        )
    );
    let field = "\u{1b}[31m".to_owned() + &"x".repeat(70);
    assert_eq!(
        said(attributes_from_json(&json!({ field: "jp" }))),
        format!(
            "\u{fffd}[31m{0}…: there is no such field: `\u{fffd}[31m{0}…`\n  \
             allowed: {ATTRIBUTES}",
            "x".repeat(59)
        )
    );
}

/// So many different names, separated by commas, none longer than two bytes.
fn many(count: usize) -> String {
    let names: Vec<_> = (0..count).map(|number| format!("{number:x}")).collect();
    names.join(",")
}

#[test]
fn a_list_may_have_so_many_entries_and_not_one_more() {
    let most = many(MAX_LIST);
    let too_many = many(MAX_LIST + 1);
    let entries: Vec<_> = too_many.split(',').collect();
    let fault =
        |place: &str| format!("{place}: too many entries\n  allowed: at most {MAX_LIST} entries");
    for field in [
        "allowed_organizations",
        "allowed_manufacturers",
        "ai_accessories",
    ] {
        let read = requirements_from_json(&json!({ field: most })).unwrap();
        assert_eq!(read.to_json()[field].as_array().unwrap().len(), MAX_LIST);
        let written = [json!({ field: too_many }), json!({ field: entries })];
        for value in written {
            assert_eq!(said(requirements_from_json(&value)), fault(field));
            let toml = format!("{field} = {}", value[field]);
            let place = format!("line 1, column 1, {field}");
            assert_eq!(said(requirements_from_toml(&toml)), fault(&place));
        }
        let csv = format!("name,{field}\nApp1,\"{too_many}\"\n");
        assert_eq!(
            said(requirements_from_csv(&csv)),
            fault(&format!("line 2, {field}"))
        );
    }
    for field in ["organizations", "virtualization", "ai_frameworks"] {
        let read = attributes_from_json(&json!({ field: most })).unwrap();
        assert_eq!(read.to_json()[field].as_array().unwrap().len(), MAX_LIST);
        assert_eq!(
            said(attributes_from_json(&json!({ field: entries }))),
            fault(field)
        );
    }
    let row = format!("* {too_many} * * * * * * * * *");
    assert_eq!(
        said(requirements_from_compact(&row)),
        fault("field 2, allowed_organizations (cDAo)")
    );
    // Far too many are not read one by one, and told once.
    let value = json!({ "allowed_locations": vec!["jp"; 100_000] });
    assert_eq!(
        said(requirements_from_json(&value)),
        fault("allowed_locations")
    );
}

#[test]
fn a_row_may_be_so_long_and_not_one_byte_longer() {
    const MOST: usize = 64 * 1024;
    let row = "jp * * * * * * * * * *";
    let longest = format!("{row}{}", " ".repeat(MOST - row.len()));
    assert_eq!(
        requirements_from_compact(&longest),
        requirements_from_compact(row)
    );
    let begin: String = longest.chars().take(64).collect();
    assert_eq!(
        said(requirements_from_compact(&(longest + " "))),
        format!("row: the row is too long: `{begin}…`\n  allowed: at most 65536 bytes")
    );
}

#[test]
fn a_file_may_have_so_many_rows_and_not_one_more() {
    const MOST: usize = 100_000;
    let longest = format!("name\n{}", "App\n".repeat(MOST));
    assert_eq!(requirements_from_csv(&longest).unwrap().len(), MOST);
    assert_eq!(
        said(requirements_from_csv(&(longest + "App\n"))),
        "file: too many rows\n  allowed: at most 100000 rows"
    );
}

#[test]
fn nothing_is_suggested_for_words_that_are_far_longer_than_any_known() {
    let longer = |word: &str, length: usize| format!("{word}{}", "x".repeat(length - word.len()));
    let suggestion = |value: Value| {
        let faults = requirements_from_json(&value).unwrap_err();
        faults.0.into_iter().next().unwrap().suggestion
    };
    let kingdom = "United Kingdom of Great Britain and Northern Ireland";
    for (length, country, field) in [
        (128, Some("gb"), Some("allowed_locations")),
        (129, None, None),
        (1_000_000, None, None),
    ] {
        let value = json!({ "allowed_locations": longer(kingdom, length) });
        assert_eq!(suggestion(value).as_deref(), country, "{length}");
        let value = json!({ longer("allowed_locations", length): 1 });
        assert_eq!(suggestion(value).as_deref(), field, "{length}");
    }
}

#[test]
fn no_depth_is_too_deep() {
    let deep = format!("virtualization = {}", "[".repeat(100_000));
    assert!(requirements_from_toml(&deep).is_err());
}

/// Whatever was read: a policy that reads back as it is, or faults that can be shown.
fn assert_sound<T: PartialEq + Debug>(
    read: Result<T, Faults>,
    again: impl Fn(&T) -> Result<T, Faults>,
) -> Result<(), TestCaseError> {
    match read {
        Ok(policy) => prop_assert_eq!(again(&policy), Ok(policy)),
        Err(faults) => {
            prop_assert!(!faults.0.is_empty());
            for fault in &faults.0 {
                prop_assert!(fault.found.chars().count() <= 65, "{}", fault.found);
                let shown = [&fault.place, &fault.found];
                prop_assert!(shown.iter().all(|text| !text.contains(char::is_control)));
                let told = [&fault.place, &fault.problem, &fault.allowed];
                prop_assert!(told.iter().all(|text| !text.is_empty()), "{:?}", fault);
            }
        }
    }
    Ok(())
}

fn assert_sound_json(value: &Value) -> Result<(), TestCaseError> {
    assert_sound(requirements_from_json(value), |read| {
        requirements_from_json(&read.to_json())
    })?;
    assert_sound(attributes_from_json(value), |read| {
        attributes_from_json(&read.to_json())
    })
}

fn assert_sound_text(text: &str) -> Result<(), TestCaseError> {
    let requirements = |read: &Requirements| requirements_from_compact(&read.to_compact());
    let attributes = |read: &Attributes| attributes_from_compact(&read.to_compact());
    assert_sound(requirements_from_compact(text), requirements)?;
    assert_sound(attributes_from_compact(text), attributes)?;
    assert_sound(requirements_from_toml(text), requirements)?;
    assert_sound(attributes_from_toml(text), attributes)?;
    assert_sound(requirements_from_csv(text), |rows| {
        let rows = rows.iter();
        rows.map(|(name, read)| Ok((name.clone(), requirements(read)?)))
            .collect()
    })?;
    let edges = attributes_from_csv(text).map(|rows| {
        rows.into_iter()
            .map(|row| row.attributes)
            .collect::<Vec<_>>()
    });
    assert_sound(edges, |edges| edges.iter().map(attributes).collect())
}

/// Pieces of which policies are made, and of which they are not.
fn piece() -> impl Strategy<Value = String> {
    let words = [requirement_words(), attribute_words()].concat();
    let marks = vec![
        " ",
        "\n",
        "\r\n",
        ",",
        ".",
        "=",
        "\"",
        "'",
        "'''",
        "[",
        "]",
        "{",
        "}",
        "-",
        "*",
        "#",
        ":",
        "\\",
        "\u{0}",
        "\u{feff}",
        "é",
        "name",
        "cDAl",
        "eDAo",
        "cHRcu",
        "edge",
        "na",
        "jp",
        "region:B",
        "lxc",
        "60",
        "1.6",
        "yes",
        "true",
        "1979-05-27",
        "0x1F",
        "inf",
        "japan",
    ];
    prop_oneof![select(words), select(marks)].prop_map(str::to_owned)
}

/// A value that is nested some levels deep, with the names of fields among its own.
fn json_value() -> impl Strategy<Value = Value> {
    let words = [requirement_words(), attribute_words()].concat();
    let name = prop_oneof![
        3 => select(words).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        piece().prop_map(Value::from),
    ];
    let nested = leaf.prop_recursive(4, 64, 8, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            proptest::collection::vec((name.clone(), inner), 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    });
    let field = prop_oneof![
        3 => select([requirement_words(), attribute_words()].concat()).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    proptest::collection::vec((field, nested), 0..8)
        .prop_map(|fields| Value::Object(fields.into_iter().collect()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn no_bytes_are_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        assert_sound_text(&String::from_utf8_lossy(&bytes))?;
    }

    #[test]
    fn no_text_is_too_much(text in any::<String>()) {
        assert_sound_text(&text)?;
        assert_sound_json(&Value::String(text))?;
    }

    #[test]
    fn nothing_made_of_the_pieces_of_policies_is_too_much(
        pieces in proptest::collection::vec(piece(), 0..40),
    ) {
        assert_sound_text(&pieces.concat())?;
        assert_sound_text(&pieces.join(" "))?;
    }

    #[test]
    fn no_json_is_too_much(value in json_value()) {
        assert_sound_json(&value)?;
    }
}
