/// Server-sent events out of the bytes of a stream (WHATWG HTML, section 9.2.6), however they
/// were cut on their way. Only what Carnet sends is read: `event` and `data`.
#[derive(Debug, Default)]
pub struct EventParser {
    line: Vec<u8>,
    event: Event,
}

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    pub data: String,
}

impl EventParser {
    /// The events that `bytes` complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.line(&String::from_utf8_lossy(&line), &mut events);
            } else {
                self.line.push(*byte);
            }
        }
        events
    }

    fn line(&mut self, line: &str, events: &mut Vec<Event>) {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if !event.data.is_empty() {
                events.push(event);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "data" => {
                if !self.event.data.is_empty() {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // A comment keeps the connection alive; ids and retry times are not used.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b": still here\n\nevent: migration\ndata: {\"a\":\r\ndata: \"\xc3\xa9\"}\r\n\r\ndata:x\n\nevent: cut\nda";

    fn expected() -> Vec<Event> {
        let event = |name: &str, data: &str| Event {
            name: name.to_owned(),
            data: data.to_owned(),
        };
        vec![event("migration", "{\"a\":\n\"é\"}"), event("", "x")]
    }

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        assert_eq!(EventParser::default().push(STREAM), expected());
        for cut in 1..STREAM.len() {
            let mut parser = EventParser::default();
            let events: Vec<Event> = STREAM
                .chunks(cut)
                .flat_map(|chunk| parser.push(chunk))
                .collect();
            assert_eq!(events, expected(), "in pieces of {cut}");
        }
    }
}
