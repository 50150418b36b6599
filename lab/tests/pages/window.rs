//! One browser, and what somebody does who sits before it.

use std::rc::Rc;
use std::time::{Duration, Instant};

use carnet_lab::exec::wait_until;
use fantoccini::elements::Element;
use fantoccini::error::CmdError;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, Locator};
use http::Method;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use url::{ParseError, Url};

/// How long the browser may take to do anything, in seconds.
const PATIENCE: u64 = 20;

/// Keys, as WebDriver has them.
pub const TAB: char = '\u{E004}';
pub const ENTER: char = '\u{E007}';
pub const SPACE: char = ' ';
pub const UP: char = '\u{E013}';
pub const DOWN: char = '\u{E015}';

/// How a page is looked at.
#[derive(Debug, Clone, Copy)]
pub struct View {
    pub name: &'static str,
    pub scheme: &'static str,
    /// In CSS pixels.
    pub width: u32,
}

pub const LIGHT: View = View {
    name: "light",
    scheme: "light",
    width: 1200,
};

pub struct Window {
    client: Client,
    runtime: Rc<Runtime>,
    base: String,
}

impl Window {
    pub fn new(client: Client, runtime: Rc<Runtime>, base: &str) -> Self {
        let window = Self {
            client,
            runtime,
            base: base.to_owned(),
        };
        window.look_at(LIGHT, 900);
        window
    }

    fn wait<T>(&self, asked: impl Future<Output = Result<T, CmdError>>) -> Result<T, CmdError> {
        let limit = Duration::from_secs(2 * PATIENCE);
        self.runtime
            .block_on(async { tokio::time::timeout(limit, asked).await })
            .expect("the browser answers")
    }

    /// What chromedriver knows besides the standard.
    fn extension(&self, path: &'static str, body: Value) -> Value {
        let asked = self.client.issue_cmd(Extension { path, body });
        self.wait(asked).unwrap()
    }

    fn devtools(&self, command: &str, parameters: Value) -> Value {
        let body = json!({ "cmd": command, "params": parameters });
        self.extension("goog/cdp/execute", body)
    }

    /// Goes to a page by its address.
    pub fn go(&self, path: &str) {
        let address = format!("{}{path}", self.base);
        self.wait(self.client.goto(&address)).unwrap();
    }

    /// Where it is now: path and query.
    pub fn path(&self) -> String {
        self.text_of("return location.pathname + location.search")
    }

    /// With which status the page came.
    pub fn status(&self) -> u64 {
        let status = "return performance.getEntriesByType('navigation')[0].responseStatus";
        self.script(status).as_u64().unwrap()
    }

    /// Runs the body of a function in the page.
    pub fn script(&self, body: &str) -> Value {
        self.script_with(body, Vec::new())
    }

    pub fn script_with(&self, body: &str, arguments: Vec<Value>) -> Value {
        self.wait(self.client.execute(body, arguments))
            .unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    pub fn text_of(&self, body: &str) -> String {
        self.script(body).as_str().unwrap_or_default().to_owned()
    }

    /// What the page says, below its head.
    pub fn text(&self) -> String {
        self.text_of("return document.querySelector('main').innerText")
    }

    /// What is at a term of the page.
    pub fn at(&self, term: &str) -> String {
        let body = "const term = [...document.querySelectorAll('dt')].find((term) => term.textContent === arguments[0]);
            return term?.nextElementSibling.innerText ?? ''";
        let value = self.script_with(body, vec![json!(term)]);
        value.as_str().unwrap().to_owned()
    }

    /// The row of a table in which `text` is a cell's first line.
    pub fn row(&self, text: &str) -> String {
        let body = "const row = [...document.querySelectorAll('tbody tr')].find((row) =>
            [...row.cells].some((cell) => cell.innerText.trim().split('\\n')[0] === arguments[0]));
            return row?.innerText ?? ''";
        let value = self.script_with(body, vec![json!(text)]);
        value.as_str().unwrap().to_owned()
    }

    /// Waits until `body`, that of a function, returns true in whatever page is there then.
    pub fn until(&self, what: &str, body: &str) {
        self.until_within(PATIENCE, what, || {
            let asked = self.wait(self.client.execute(body, Vec::new()));
            asked.is_ok_and(|value| value == json!(true))
        });
    }

    /// Waits until the page says `text`.
    pub fn until_it_says(&self, text: &str) {
        self.until_within(PATIENCE, text, || {
            let body = "return document.querySelector('main').innerText.includes(arguments[0])";
            let asked = self.client.execute(body, vec![json!(text)]);
            self.wait(asked).is_ok_and(|value| value == json!(true))
        });
    }

    pub fn until_within(&self, seconds: u64, what: &str, condition: impl FnMut() -> bool) {
        if wait_until(what, seconds, condition).is_err() {
            panic!(
                "not within {seconds} s: {what}; {} says:\n{}",
                self.path(),
                self.text()
            );
        }
    }

    /// Presses a button, and waits for the page that it leads to.
    pub fn press(&self, label: &str) {
        self.leave_by(&format!("//button[normalize-space()='{label}']"));
    }

    /// The same, of a button in the row of a table that holds `text`.
    pub fn press_in_row(&self, text: &str, label: &str) {
        self.leave_by(&format!(
            "//tr[contains(., '{text}')]//button[normalize-space()='{label}']"
        ));
    }

    /// Follows a link.
    pub fn follow(&self, label: &str) {
        self.leave_by(&format!("//a[normalize-space()='{label}']"));
    }

    /// The same of whatever is at an XPath.
    pub fn leave_by(&self, place: &str) {
        self.leave(|| self.click(Locator::XPath(place)));
    }

    /// Does what leads to another page, and waits until that is there.
    pub fn leave(&self, act: impl FnOnce()) {
        self.script("globalThis.isLeft = false");
        act();
        self.until(
            "another page",
            "return globalThis.isLeft === undefined && document.readyState === 'complete'",
        );
    }

    /// Does something with an element. A page that shows changes may put another in its place
    /// meanwhile: then with that one.
    fn act<T>(&self, place: Locator<'_>, mut act: impl FnMut(Element) -> Result<T, CmdError>) -> T {
        let deadline = Instant::now() + Duration::from_secs(PATIENCE);
        loop {
            match self.wait(self.client.find(place)).and_then(&mut act) {
                Ok(done) => return done,
                Err(error) if Instant::now() >= deadline => {
                    panic!("{place:?}: {error}; {} says:\n{}", self.path(), self.text())
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    pub fn click(&self, place: Locator<'_>) {
        self.act(place, |element| self.wait(element.click()));
    }

    /// Types into a field, in place of what stands there.
    pub fn fill(&self, field: &str, text: &str) {
        let place = format!("main [name='{field}']:not([type=hidden])");
        self.act(Locator::Css(&place), |element| {
            self.wait(async {
                if element.tag_name().await? == "select" {
                    return element.select_by_value(text).await;
                }
                element.clear().await?;
                element.send_keys(text).await
            })
        });
    }

    /// Ticks a box, or picks one of several.
    pub fn tick(&self, field: &str, value: &str) {
        let place = format!("main input[name='{field}'][value='{value}']");
        self.click(Locator::Css(&place));
    }

    /// What stands in a field.
    pub fn value(&self, field: &str) -> String {
        let body = "const fields = [...document.querySelectorAll(`main [name='${arguments[0]}']`)];
            return fields.filter((field) => !['checkbox', 'radio'].includes(field.type) || field.checked)
                .map((field) => field.value).join()";
        let value = self.script_with(body, vec![json!(field)]);
        value.as_str().unwrap().to_owned()
    }

    /// The fields at which something is said to be wrong.
    pub fn faulty(&self) -> Vec<String> {
        let body = "return [...document.querySelectorAll('.faulty')].filter((field) => field.querySelector('.fault')?.innerText)
            .map((field) => field.querySelector('input, select, textarea').name)";
        let names = self.script(body);
        let names = names.as_array().unwrap().iter();
        names
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    }

    /// What is shown once, to be copied.
    pub fn secret(&self) -> String {
        self.text_of("return document.querySelector('[role=status] .secret').innerText.trim()")
    }

    /// Presses keys, one after the other.
    pub fn keys(&self, keys: impl IntoIterator<Item = char>) {
        let strokes: Vec<Value> = keys
            .into_iter()
            .flat_map(|key| ["keyDown", "keyUp"].map(|way| json!({ "type": way, "value": key })))
            .collect();
        let keyboard = json!([{ "type": "key", "id": "keyboard", "actions": strokes }]);
        self.extension("actions", json!({ "actions": keyboard }));
    }

    /// As it is seen.
    pub fn look_at(&self, view: View, height: u64) {
        let size = json!({
            "width": view.width,
            "height": height,
            "deviceScaleFactor": 1,
            "mobile": view.width < 600,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", size);
        let scheme = json!([{ "name": "prefers-color-scheme", "value": view.scheme }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": scheme }));
    }

    /// All of the page as a picture, a PNG in base64.
    pub fn picture(&self, view: View) -> String {
        let height = self.script("return document.documentElement.scrollHeight");
        let height = height.as_u64().unwrap().clamp(600, 5_000);
        let clip = json!({ "x": 0, "y": 0, "width": view.width, "height": height, "scale": 1 });
        let asked = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let picture = self.devtools("Page.captureScreenshot", asked);
        picture["data"].as_str().unwrap().to_owned()
    }

    /// Ends the browser.
    pub fn close(self) {
        self.wait(self.client.clone().close()).unwrap();
    }

    /// What the browser complains of since it was last asked. That a page is one of a refusal is
    /// no complaint.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.extension("se/log", json!({ "type": "browser" }));
        log.as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["message"].as_str().unwrap().to_owned())
            .filter(|message| !message.contains("responded with a status of 4"))
            .collect()
    }
}

#[derive(Debug)]
struct Extension {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Extension {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!(
            "session/{}/{}",
            session.unwrap_or_default(),
            self.path
        ))
    }

    fn method_and_body(&self, _address: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}
