use carnet_api::v1::InputFault;

use super::fields::{Fields, pick_as_name, pick_name};
use crate::http::problem::ApiError;
use crate::secret;

/// The field that says that a form was given out here.
pub(super) const TOKEN: &str = "form_token";

/// What stands in [`TOKEN`], for whoever has this cookie. Nobody else can tell it, and it does
/// not tell the cookie.
pub(super) fn token(cookie: &str) -> String {
    hex::encode(secret::hash(&format!("carnet form {cookie}")))
}

/// A field to be filled in.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub name: &'static str,
    pub label: &'static str,
    /// The paper's name of it.
    pub paper: Option<&'static str>,
    pub kind: Kind,
    /// What may stand there.
    pub hint: String,
    pub value: String,
    pub faults: Vec<InputFault>,
    /// What can be saved, and is hardly meant.
    pub warnings: Vec<String>,
    /// What can be picked for it.
    pub pick: Option<Pick>,
    /// What is known to be somewhere, of which one can be chosen while typing.
    pub known: Vec<String>,
}

/// A list from which values are picked into a field that holds several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pick {
    /// What is picked: `country`.
    pub what: &'static str,
    /// What is sent and what is shown, under a heading each.
    pub groups: Vec<(&'static str, Vec<(String, String)>)>,
    /// Whether it can be excluded, too.
    pub excludes: bool,
}

/// How a field is filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Name,
    NewPassword,
    Password,
    Hidden,
    /// One of these: what is sent, and what is shown.
    Choice(Vec<(String, String)>),
    /// Any of these.
    Boxes(Vec<(&'static str, &'static str)>),
}

impl Field {
    pub(super) fn new(name: &'static str, label: &'static str, kind: Kind) -> Self {
        Self {
            name,
            label,
            paper: None,
            kind,
            hint: String::new(),
            value: String::new(),
            faults: Vec::new(),
            warnings: Vec::new(),
            pick: None,
            known: Vec::new(),
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    pub(super) fn value(mut self, value: impl Into<String>) -> Self {
        self.value = value.into();
        self
    }

    /// With the paper's name of it.
    pub(super) fn paper(mut self, name: &'static str) -> Self {
        self.paper = Some(name);
        self
    }

    pub(super) fn pick_name(&self) -> String {
        pick_name(self.name)
    }

    pub(super) fn pick_as_name(&self) -> String {
        pick_as_name(self.name)
    }

    /// Whether the box of this value is ticked, or the choice made.
    pub(super) fn is_chosen(&self, value: &str) -> bool {
        self.value.split(',').any(|chosen| chosen == value)
    }

    /// What its input is described by, for who hears a page.
    pub(super) fn described_by(&self) -> String {
        let mut ids = Vec::new();
        if !self.hint.is_empty() {
            ids.push(format!("{}-hint", self.name));
        }
        if !self.faults.is_empty() {
            ids.push(format!("{}-faults", self.name));
        }
        if !self.warnings.is_empty() {
            ids.push(format!("{}-warnings", self.name));
        }
        ids.join(" ")
    }
}

/// A form, and what is wrong with what was filled in.
#[derive(Debug, Clone)]
pub(super) struct Form {
    pub fields: Vec<Field>,
    /// What is wrong with the whole.
    pub problem: Option<String>,
    /// Faults of what is no field here.
    pub faults: Vec<InputFault>,
    /// What can be saved as a whole, and is hardly meant.
    pub warnings: Vec<String>,
}

impl Form {
    pub(super) fn new(fields: Vec<Field>) -> Self {
        Self {
            fields,
            problem: None,
            faults: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// With what somebody typed; passwords are not sent back.
    pub(super) fn filled(mut self, typed: &Fields) -> Self {
        for field in &mut self.fields {
            field.value = match field.kind {
                Kind::NewPassword | Kind::Password => String::new(),
                Kind::Boxes(_) => typed.all(field.name).collect::<Vec<_>>().join(","),
                _ => typed.list(field.name),
            };
        }
        self
    }

    /// With what is wrong, each fault at its field.
    ///
    /// # Errors
    /// What is nothing that whoever filled it in can mend.
    pub(super) fn refused(mut self, error: ApiError) -> Result<Self, ApiError> {
        if !matches!(error.0.status, 403 | 404 | 409 | 422 | 429 | 502) {
            return Err(error);
        }
        for fault in &error.0.faults {
            let at_field = self
                .fields
                .iter_mut()
                .find(|field| field.name == fault.place);
            match at_field {
                Some(field) => field.faults.push(fault.clone()),
                None => self.faults.push(fault.clone()),
            }
        }
        self.problem = error.0.detail;
        Ok(self)
    }

    /// Those at which something is wrong.
    pub(super) fn faulty_fields(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| !field.faults.is_empty())
    }

    /// Whether something is wrong.
    pub(super) fn is_refused(&self) -> bool {
        self.problem.is_some()
    }
}
