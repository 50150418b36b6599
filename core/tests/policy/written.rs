//! Policies as people write them, made up out of small vocabularies, so that what is required
//! and what is there meet often.

use carnet_core::instant::UnixMillis;
use carnet_core::policy::{Attributes, Element, Utilization};
use proptest::collection::btree_set;
use proptest::prelude::*;
use proptest::sample::select;

/// When every audit here takes place.
pub const NOW: UnixMillis = UnixMillis(1_000_000_000);
/// How old a reading may be.
pub const MAX_READING_AGE_MS: u64 = 60_000;

/// A reading as the paper's tables print it: percentages in decimals.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenReading {
    pub cpu: String,
    pub memory: String,
    pub age_ms: i64,
}

impl WrittenReading {
    pub fn utilization(&self) -> Utilization {
        let hundredths = |percent: &str| {
            let percent: f64 = percent.parse().expect("a percentage");
            (percent * 100.0).round() as u16
        };
        let read_at = UnixMillis(NOW.0 - self.age_ms);
        Utilization::new(hundredths(&self.cpu), hundredths(&self.memory), read_at)
            .expect("at most 100 %")
    }
}

/// The long names of the elements, in the order of a compact row.
pub fn requirement_words() -> Vec<&'static str> {
    Element::ALL.map(Element::name).to_vec()
}

/// The long names of the attributes, in the order of a compact row.
pub fn attribute_words() -> Vec<&'static str> {
    Attributes::COLUMNS.map(|(word, _)| word).to_vec()
}

/// The eleven cells of a compact row of requirements; about half of them ask for nothing.
pub fn requirements() -> impl Strategy<Value = Vec<String>> {
    let organizations = || allow_list(&["caA", "caB", "caC"]);
    let cells = vec![
        allow_list(&["jp", "US", "de", "region:A", "region:B"]),
        organizations(),
        allow_list(&["deA", "deB", "deC"]),
        one_of(&["lxc", "kvm"]),
        one_of(&["0", "39.99", "40", "40.0", "40.01", "100"]),
        one_of(&["0", "29.99", "30", "30.00", "30.01", "100"]),
        one_of(&[
            "0.001", "1.599", "1.6", "1.60", "1.601", "9", "10", "65.535",
        ]),
        one_of(&["0.001", "3.999", "4", "4.001", "08", "16", "4000000"]),
        one_of(&["yes", "true", "no", "False"]),
        list(&["tpu", "npu", "vpu"]),
        list(&["onnx", "torch"]),
    ];
    cells
        .into_iter()
        .map(|cell| prop_oneof![select(vec!["*".to_owned(), "-".to_owned()]), cell])
        .collect::<Vec<_>>()
}

/// The ten cells of a compact row of attributes; about a fourth of them are not known.
pub fn attributes() -> impl Strategy<Value = Vec<String>> {
    let cells = vec![
        one_of(&["A", "B", "C"]),
        one_of(&["jp", "JP", "us", "de"]),
        list(&["caA", "caB", "caC"]),
        one_of(&["deA", "deB", "deC"]),
        list(&["lxc", "kvm", "docker"]),
        one_of(&["0.001", "1.599", "1.6", "1.601", "9", "10.0", "65.535"]),
        one_of(&["0.001", "3.999", "4", "4.001", "8", "16", "4000000"]),
        one_of(&["yes", "no", "TRUE"]),
        list(&["tpu", "npu", "vpu"]),
        list(&["onnx", "torch", "tflite"]),
    ];
    cells
        .into_iter()
        .map(|cell| {
            prop_oneof![
                1 => select(vec!["-".to_owned(), "na".to_owned(), "NA".to_owned()]),
                3 => cell,
            ]
        })
        .collect::<Vec<_>>()
}

/// No reading, or one around the thresholds and around the limits of its age.
pub fn reading() -> impl Strategy<Value = Option<WrittenReading>> {
    let reading = (
        select(vec!["0", "39.99", "40", "40.01", "100"]),
        select(vec!["0", "29.99", "30", "30.01", "100"]),
        prop_oneof![
            3 => 0..=60_000_i64,
            1 => select(vec![-1_001_i64, -1_000, 0, 60_000, 60_001]),
        ],
    )
        .prop_map(|(cpu, memory, age_ms)| WrittenReading {
            cpu: cpu.to_owned(),
            memory: memory.to_owned(),
            age_ms,
        });
    proptest::option::weighted(0.8, reading)
}

fn one_of(words: &[&str]) -> BoxedStrategy<String> {
    select(owned(words)).boxed()
}

/// Some of `words`, in any order, with commas.
fn list(words: &[&str]) -> BoxedStrategy<String> {
    btree_set(select(owned(words)), 1..=words.len())
        .prop_map(|words| words.into_iter().collect::<Vec<_>>())
        .prop_shuffle()
        .prop_map(|words| words.join(","))
        .boxed()
}

/// Some of `words` named, some others excluded, sometimes `*` beside exclusions alone.
fn allow_list(words: &[&str]) -> BoxedStrategy<String> {
    let words = owned(words);
    let each = proptest::collection::vec(select(vec!["", "named", "excluded"]), words.len());
    (each, any::<bool>())
        .prop_map(move |(each, star)| {
            let mut entries: Vec<String> = words
                .iter()
                .zip(&each)
                .filter_map(|(word, what)| match *what {
                    "named" => Some(word.clone()),
                    "excluded" => Some(format!("-{word}")),
                    _ => None,
                })
                .collect();
            if entries.is_empty() || (star && !each.contains(&"named")) {
                entries.push("*".to_owned());
            }
            entries
        })
        .prop_shuffle()
        .prop_map(|entries| entries.join(","))
        .boxed()
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}
