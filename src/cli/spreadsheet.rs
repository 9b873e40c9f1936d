//! Requests from CSV: a header row of the request's field names, a request a row. Empty cells are fields that are not there.
//!
//! Cells become what the field wants: numbers, true and false, JSON for `context`, else text. Whether they are right is for the codec to
//! say, as for every request.

use csv::{ReaderBuilder, StringRecord};
use serde_json::{Map, Value, json};

use super::jobs::Read;
use crate::message::request::FIELDS;

/// Fields that are numbers.
const NUMBERS: [&str; 3] = ["priority", "executions", "max_attempts"];

/// Every row, or what is wrong with it; a header that is wrong is the only fault.
pub(super) fn read(text: &str) -> Vec<Read> {
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter(text))
        .from_reader(text.as_bytes());
    let header = match reader.headers() {
        Ok(header) => header.clone(),
        Err(error) => return vec![(1, Err(error.to_string()))],
    };
    let faults = faults_of(&header);
    if !faults.is_empty() {
        return vec![(1, Err(faults.join("; ")))];
    }
    let mut rows = Vec::new();
    for row in reader.into_records() {
        match row {
            Ok(row) => {
                let line = line_of(text, row.position());
                if row.iter().any(|cell| !cell.trim().is_empty()) {
                    rows.push((line, Ok(request(&header, &row))));
                }
            }
            Err(error) => rows.push((line_of(text, error.position()), Err(spoken(&error)))),
        }
    }
    rows
}

/// What separates cells, as the header has it: spreadsheets of half of the world write semicolons.
fn delimiter(text: &str) -> u8 {
    let header = text.lines().next().unwrap_or_default();
    if header.contains(',') {
        return b',';
    }
    [b';', b'\t']
        .into_iter()
        .find(|delimiter| header.as_bytes().contains(delimiter))
        .unwrap_or(b',')
}

/// The line on which a row begins: its position is where the row before it ended, with blank lines between.
fn line_of(text: &str, position: Option<&csv::Position>) -> usize {
    let Some(position) = position else {
        return 1;
    };
    let at = usize::try_from(position.byte()).unwrap_or(usize::MAX);
    let rest = text.as_bytes().get(at..).unwrap_or_default();
    let blank = rest
        .iter()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .filter(|byte| **byte == b'\n')
        .count();
    usize::try_from(position.line()).map_or(1, |line| line + blank)
}

fn faults_of(header: &StringRecord) -> Vec<String> {
    let mut faults = Vec::new();
    for (index, name) in header.iter().enumerate() {
        let name = name.trim();
        if name == "devices" {
            faults.push("devices: a list does not fit into a cell; write JSON lines".to_owned());
        } else if !FIELDS.contains(&name) {
            let known: Vec<_> = FIELDS
                .into_iter()
                .filter(|known| *known != "devices")
                .collect();
            faults.push(format!(
                "{name:?} is no field of a request; the header row names fields, which are {}",
                known.join(", ")
            ));
        }
        if header.iter().take(index).any(|other| other.trim() == name) {
            faults.push(format!("{name:?} is there twice"));
        }
    }
    faults
}

fn spoken(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!(
            "has {len} cells, the header row has {expected_len}; put a cell that holds the separator in quotes"
        ),
        _ => error.to_string(),
    }
}

fn request(header: &StringRecord, row: &StringRecord) -> String {
    let mut fields = Map::new();
    for (name, cell) in header.iter().zip(row) {
        let (name, cell) = (name.trim(), cell.trim());
        if !cell.is_empty() {
            fields.insert(name.to_owned(), value(name, cell));
        }
    }
    Value::Object(fields).to_string()
}

/// What does not fit stays text, and the codec says what is wanted.
fn value(name: &str, cell: &str) -> Value {
    let text = || json!(cell);
    match name {
        _ if NUMBERS.contains(&name) => cell
            .parse::<u64>()
            .map_or_else(|_| text(), |number| json!(number)),
        "force" => cell
            .to_ascii_lowercase()
            .parse::<bool>()
            .map_or_else(|_| text(), |force| json!(force)),
        "context" => serde_json::from_str(cell).unwrap_or_else(|_| text()),
        _ => text(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Value {
        let [(_, row)] = &read(text)[..] else {
            panic!("{:?}", read(text))
        };
        serde_json::from_str(row.as_ref().unwrap()).unwrap()
    }

    #[test]
    fn cells_become_what_their_fields_want() {
        let text = "job_id,cpe_id,max_attempts,force,context,not_before,priority\n\
                    007,123,2,TRUE,\"{\"\"order\"\": 1}\",,many\n";
        assert_eq!(
            only(text),
            json!({"job_id": "007", "cpe_id": "123", "max_attempts": 2, "force": true, "context": {"order": 1}, "priority": "many"})
        );
        assert_eq!(
            only("context\nsay \"hello\"\n"),
            json!({"context": "say \"hello\""})
        );
    }

    #[test]
    fn separators_of_other_countries_are_seen() {
        for text in [
            "job_id;cpe_id\na;b\n",
            "job_id\tcpe_id\r\na\tb\r\n",
            " job_id , cpe_id \n a , b \n",
        ] {
            assert_eq!(
                only(text),
                json!({"job_id": "a", "cpe_id": "b"}),
                "{text:?}"
            );
        }
    }

    #[test]
    fn faults_have_their_line() {
        let rows = read("job_id,cpe_id\na,b\n\n\"x\ny\",c\nonly\n , \nd,e,f\n");
        let lines: Vec<_> = rows
            .iter()
            .map(|(line, row)| (*line, row.is_ok()))
            .collect();
        assert_eq!(lines, [(2, true), (4, true), (6, false), (8, false)]);
        let fault = rows[3].1.as_ref().unwrap_err();
        assert!(fault.contains("3 cells, the header row has 2"), "{fault}");
        for (text, said) in [
            ("job_id,serial\na,b\n", "\"serial\" is no field"),
            ("job_id,job_id\na,b\n", "twice"),
            ("job_id,devices\na,b\n", "JSON lines"),
        ] {
            let rows = read(text);
            assert_eq!(rows.len(), 1);
            let (line, fault) = &rows[0];
            assert!(
                *line == 1 && fault.as_ref().unwrap_err().contains(said),
                "{rows:?}"
            );
        }
    }
}
