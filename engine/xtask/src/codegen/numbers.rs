//! `proto/numbers.lock`: every number that a field or a value of the API was ever given. A number is never used for anything else, or an
//! old osctl and a new node would take one thing for another; so what was given once stays on the list, and what the proto files say is
//! held against it.

use std::collections::BTreeMap;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

const HEAD: &str = "# Every number that the API has given to a field or a value. `cargo xtask codegen` adds to it; nothing is ever taken off.\n";

/// Message or enum, and number -> what it is.
type Given = BTreeMap<(String, i32), String>;

/// The list with what the proto files add to it; or every number that is used for something else than before.
pub(super) fn list(set: &FileDescriptorSet, before: &str) -> Result<String, Vec<String>> {
    let mut now = Now::default();
    for file in &set.file {
        // What others have given is theirs to look after.
        if !file.package().starts_with("google.") {
            file.message_type.iter().for_each(|message| now.message(file.package(), message));
            file.enum_type.iter().for_each(|one| now.enumeration(file.package(), one));
        }
    }
    let mut wrong = Vec::new();
    let mut all = parse(before)?;
    for ((of, number), was) in &all {
        let place = (of.clone(), *number);
        match now.given.get(&place) {
            Some(is) if is != was => {
                wrong.push(format!("{of}: {number} was `{was}` and may not become `{is}`"));
            }
            None if now.known.contains_key(of) && !now.is_reserved(of, *number) => {
                wrong.push(format!("{of}: {number} was `{was}`; it is gone and not reserved"));
            }
            _ => {}
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    all.extend(now.given);
    let lines = all.into_iter().map(|((of, number), is)| format!("{of} {number} {is}\n"));
    Ok(lines.fold(HEAD.to_owned(), |text, line| text + &line))
}

fn parse(text: &str) -> Result<Given, Vec<String>> {
    let row = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let of = words.next()?.to_owned();
        Some(((of, words.next()?.parse().ok()?), words.next()?.to_owned()))
    };
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    // A row that were passed over would be forgotten.
    lines.map(|line| row(line).ok_or_else(|| vec![format!("`{line}` is not a row")])).collect()
}

/// What the proto files say.
#[derive(Default)]
struct Now {
    given: Given,
    /// Messages and enums, and what they reserve: a beginning, and the first number behind it.
    known: BTreeMap<String, Vec<(i32, i32)>>,
}

impl Now {
    fn is_reserved(&self, of: &str, number: i32) -> bool {
        let ranges = self.known.get(of).into_iter().flatten();
        ranges.into_iter().any(|(from, to)| (*from..*to).contains(&number))
    }

    fn message(&mut self, scope: &str, message: &DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        for field in &message.field {
            let row = (name.clone(), field.number());
            self.given.insert(row, format!("{} {}", field.name(), kind(field)));
        }
        let reserved = message.reserved_range.iter().map(|range| (range.start(), range.end()));
        self.known.insert(name.clone(), reserved.collect());
        message.nested_type.iter().for_each(|nested| self.message(&name, nested));
        message.enum_type.iter().for_each(|nested| self.enumeration(&name, nested));
    }

    fn enumeration(&mut self, scope: &str, one: &EnumDescriptorProto) {
        let name = format!("{scope}.{}", one.name());
        for value in &one.value {
            self.given.insert((name.clone(), value.number()), value.name().to_owned());
        }
        // Of an enum's range the end is in it (descriptor.proto, EnumReservedRange).
        let reserved =
            one.reserved_range.iter().map(|range| (range.start(), range.end().saturating_add(1)));
        self.known.insert(name, reserved.collect());
    }
}

/// A field's type as the wire has it: `repeated .keel.v1.Unit`, `uint64`.
fn kind(field: &FieldDescriptorProto) -> String {
    let repeated = if field.label() == Label::Repeated { "repeated " } else { "" };
    let name = match field.r#type() {
        Type::Message | Type::Enum => field.type_name().to_owned(),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    format!("{repeated}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the list becomes, but for its head, when the proto file has this body.
    #[track_caller]
    fn check(before: &str, body: &str, expect: Result<&str, &str>) {
        let source = format!("syntax = \"proto3\"; package k;\n{body}");
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("k.proto"), source).unwrap();
        let set = protox::compile(["k.proto"], [folder.path()]).unwrap();
        let text = list(&set, before).map_err(|wrong| wrong.join("; "));
        let text = text.map(|text| text.strip_prefix(HEAD).unwrap().to_owned());
        assert_eq!(text.as_deref().map_err(String::as_str), expect, "{body}");
    }

    #[test]
    fn a_number_is_given_once() {
        let one = "k.A 1 b string\n";
        check("", "message A { string b = 1; }", Ok(one));
        check(one, "message A { string b = 1; }", Ok(one));
        check(
            one,
            "message A { string b = 1; repeated A c = 2; }",
            Ok("k.A 1 b string\nk.A 2 c repeated .k.A\n"),
        );
        for (body, becomes) in [
            ("message A { string c = 1; }", "c string"),
            ("message A { bytes b = 1; }", "b bytes"),
            ("message A { repeated string b = 1; }", "b repeated string"),
        ] {
            let wrong = format!("k.A: 1 was `b string` and may not become `{becomes}`");
            check(one, body, Err(&wrong));
        }
        check(one, "message A {}", Err("k.A: 1 was `b string`; it is gone and not reserved"));
        check(one, "message A { reserved 1; }", Ok(one));
        check("<<<<<<< ours\n", "message A {}", Err("`<<<<<<< ours` is not a row"));
        check(one, "message B {}", Ok(one));
        // Reserved today, and used again tomorrow.
        check(
            one,
            "message A { string other = 1; }",
            Err("k.A: 1 was `b string` and may not become `other string`"),
        );
    }

    #[test]
    fn values_and_what_is_nested_are_on_the_list() {
        let all = "k.A.B 1 c double\nk.A.E 0 E_UNSPECIFIED\nk.A.E 1 E_ONE\n";
        check(
            "",
            "message A { message B { double c = 1; } enum E { E_UNSPECIFIED = 0; E_ONE = 1; } }",
            Ok(all),
        );
        let one = "k.E 0 E_UNSPECIFIED\nk.E 1 E_ONE\n";
        check(
            one,
            "enum E { E_UNSPECIFIED = 0; E_TWO = 1; }",
            Err("k.E: 1 was `E_ONE` and may not become `E_TWO`"),
        );
        check(one, "enum E { reserved 1; E_UNSPECIFIED = 0; }", Ok(one));
    }
}
