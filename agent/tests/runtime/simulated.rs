use std::fs;
use std::path::PathBuf;

use carnet_agent::runtime::{ContainerName, Runtime, SimulatedRuntime};
use serde_json::Value;
use tempfile::TempDir;

use crate::suite::{self, Inside};

struct Simulation {
    name: ContainerName,
    runtime: SimulatedRuntime,
    _directory: TempDir,
}

impl Simulation {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let runtime = SimulatedRuntime::new(directory.path().join("containers"));
        let name = ContainerName::new("App1").unwrap();
        runtime.create(&name, "").unwrap();
        Self {
            name,
            runtime,
            _directory: directory,
        }
    }

    fn record(&self) -> PathBuf {
        let rootfs = self.runtime.rootfs(&self.name);
        rootfs.with_file_name("container.json")
    }

    fn load(&self) -> Value {
        let record: Value = serde_json::from_slice(&fs::read(self.record()).unwrap()).unwrap();
        assert_eq!(record["state"], "running", "it does not run");
        record
    }
}

impl Inside for Simulation {
    fn name(&self) -> &ContainerName {
        &self.name
    }

    fn remember(&self, text: &str) {
        let mut record = self.load();
        record["memory"] = text.into();
        fs::write(self.record(), record.to_string()).unwrap();
    }

    fn recall(&self) -> String {
        self.load()["memory"].as_str().unwrap().to_owned()
    }

    fn place_claim(&self, text: Option<&str>) {
        let directory = self.runtime.rootfs(&self.name).join("run");
        match text {
            Some(text) => {
                fs::create_dir_all(&directory).unwrap();
                fs::write(directory.join("carnet-claim"), text).unwrap();
            }
            None => fs::remove_file(directory.join("carnet-claim")).unwrap_or_default(),
        }
    }
}

macro_rules! promises {
    ($($promise:ident),+ $(,)?) => {$(
        #[tokio::test]
        async fn $promise() {
            let simulation = Simulation::new();
            suite::$promise(&simulation.runtime, &simulation).await;
        }
    )+};
}

promises!(
    it_is_listed_and_described,
    it_tells_the_claim,
    it_is_frozen_and_thawed,
    it_is_dumped_while_frozen_and_runs_on,
    its_memory_is_given_out_and_it_runs_on,
    its_memory_is_dumped_while_it_runs,
    it_ends_and_comes_back_to_life_as_it_was,
    it_is_stopped_and_started_anew,
    it_comes_without_its_memory,
    what_is_not_there_is_not_there,
);

#[tokio::test]
async fn one_container_keeps_all_promises_in_turn() {
    let simulation = Simulation::new();
    suite::all(&simulation.runtime, &simulation).await;
}
