//! The rules that keep the API one that can grow: names, zero values, numbers, and words on everything.

#![cfg(test)]

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    ServiceDescriptorProto,
};

/// Where things stand in a `FileDescriptorProto`; a comment is found by the way of field numbers to its thing.
/// Source: descriptor.proto, `SourceCodeInfo.Location.path`.
mod path {
    pub(crate) const FILE_MESSAGE: i32 = 4;
    pub(crate) const FILE_ENUM: i32 = 5;
    pub(crate) const FILE_SERVICE: i32 = 6;
    pub(crate) const MESSAGE_FIELD: i32 = 2;
    pub(crate) const MESSAGE_NESTED: i32 = 3;
    pub(crate) const MESSAGE_ENUM: i32 = 4;
    pub(crate) const MESSAGE_ONEOF: i32 = 8;
    pub(crate) const ENUM_VALUE: i32 = 2;
    pub(crate) const SERVICE_METHOD: i32 = 2;
}

/// The comments of one file, and the findings so far.
struct Lint {
    comments: HashMap<Vec<i32>, String>,
    findings: Vec<String>,
}

fn lint(file: &FileDescriptorProto) -> Vec<String> {
    let locations = file.source_code_info.iter().flat_map(|info| &info.location);
    let comments =
        locations.map(|at| (at.path.clone(), at.leading_comments().trim().to_owned())).collect();
    let mut lint = Lint { comments, findings: Vec::new() };
    let folder = file.name().rsplit_once('/').map_or("", |(folder, _)| folder);
    lint.expect(
        file.package() == folder.replace('/', "."),
        file.name(),
        "its package is not its folder",
    );
    for (n, message) in (0..).zip(&file.message_type) {
        lint.message(message, &[path::FILE_MESSAGE, n]);
    }
    for (n, enumeration) in (0..).zip(&file.enum_type) {
        lint.enumeration(enumeration, &[path::FILE_ENUM, n]);
    }
    for (n, service) in (0..).zip(&file.service) {
        lint.service(service, &[path::FILE_SERVICE, n]);
    }
    lint.findings
}

impl Lint {
    fn expect(&mut self, holds: bool, name: &str, otherwise: &str) {
        if !holds {
            self.findings.push(format!("{name}: {otherwise}"));
        }
    }

    fn commented(&mut self, at: &[i32], name: &str) {
        let comment = self.comments.get(at).cloned().unwrap_or_default();
        self.expect(!comment.is_empty(), name, "nothing says what it is");
        self.expect(
            comment.is_empty() || comment.ends_with('.'),
            name,
            "its comment is not a sentence",
        );
    }

    fn message(&mut self, message: &DescriptorProto, at: &[i32]) {
        let name = message.name();
        self.commented(at, name);
        self.expect(is_pascal(name), name, "not PascalCase");
        for (n, field) in (0..).zip(&message.field) {
            self.field(name, field, &[at, &[path::MESSAGE_FIELD, n]].concat());
        }
        let reserved: i32 =
            message.reserved_range.iter().map(|range| range.end() - range.start()).sum();
        let highest = message.field.iter().map(FieldDescriptorProto::number).max().unwrap_or(0);
        let used = i32::try_from(message.field.len()).unwrap() + reserved;
        self.expect(highest <= used, name, "its numbers have a gap that is not reserved");
        for (n, oneof) in (0..).zip(&message.oneof_decl) {
            // `optional` makes a oneof of its own that nobody wrote.
            let written = !oneof.name().starts_with('_');
            if written {
                self.commented(
                    &[at, &[path::MESSAGE_ONEOF, n]].concat(),
                    &format!("{name}.{}", oneof.name()),
                );
            }
        }
        for (n, nested) in (0..).zip(&message.nested_type) {
            self.message(nested, &[at, &[path::MESSAGE_NESTED, n]].concat());
        }
        for (n, enumeration) in (0..).zip(&message.enum_type) {
            self.enumeration(enumeration, &[at, &[path::MESSAGE_ENUM, n]].concat());
        }
    }

    fn field(&mut self, message: &str, field: &FieldDescriptorProto, at: &[i32]) {
        let name = format!("{message}.{}", field.name());
        self.commented(at, &name);
        self.expect(is_lower_snake(field.name()), &name, "not lower_snake_case");
    }

    fn enumeration(&mut self, enumeration: &EnumDescriptorProto, at: &[i32]) {
        let name = enumeration.name();
        self.commented(at, name);
        self.expect(is_pascal(name), name, "not PascalCase");
        let prefix = upper_snake(name);
        for (n, value) in (0..).zip(&enumeration.value) {
            self.commented(&[at, &[path::ENUM_VALUE, n]].concat(), value.name());
            let prefixed =
                value.name().strip_prefix(&prefix).is_some_and(|rest| rest.starts_with('_'));
            self.expect(prefixed, value.name(), "does not begin with its enum's name");
            self.expect(
                value.number() == n,
                value.name(),
                "its number does not follow the one before",
            );
        }
        let zero = enumeration.value.first().map_or("", |value| value.name());
        self.expect(
            zero == format!("{prefix}_UNSPECIFIED"),
            name,
            "its first value is not UNSPECIFIED",
        );
    }

    fn service(&mut self, service: &ServiceDescriptorProto, at: &[i32]) {
        let name = service.name();
        self.commented(at, name);
        self.expect(is_pascal(name), name, "not PascalCase");
        for (n, method) in (0..).zip(&service.method) {
            let full = format!("{name}.{}", method.name());
            self.commented(&[at, &[path::SERVICE_METHOD, n]].concat(), &full);
            self.expect(is_pascal(method.name()), &full, "not PascalCase");
            // Its own two messages, so that either can grow alone.
            let own = |type_name: &str, suffix: &str| {
                type_name.rsplit('.').next() == Some(&format!("{}{suffix}", method.name()))
            };
            self.expect(
                own(method.input_type(), "Request"),
                &full,
                "its request is not called after it",
            );
            self.expect(
                own(method.output_type(), "Response"),
                &full,
                "its response is not called after it",
            );
        }
    }
}

fn is_pascal(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.chars().all(|c| c.is_ascii_alphanumeric())
}

fn is_lower_snake(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn upper_snake(pascal: &str) -> String {
    let mut snake = String::new();
    for c in pascal.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_uppercase());
    }
    snake
}

fn compile(source: &str) -> FileDescriptorProto {
    let file = protox::file::File::from_source("keel/v1/test.proto", source).unwrap();
    file.file_descriptor_proto().clone()
}

#[test]
fn the_api_keeps_the_rules() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("keel/v1");
    let mut linted = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("keel/v1/{}", path.file_name().unwrap().to_str().unwrap());
        let source = fs::read_to_string(&path).unwrap();
        let file = protox::file::File::from_source(&name, &source).unwrap();
        assert_eq!(lint(file.file_descriptor_proto()), Vec::<String>::new(), "{name}");
        linted += 1;
    }
    assert!(linted > 0);
}

/// What the lint says of a file with this body.
fn check(body: &str, expect: &[&str]) {
    let source = format!("syntax = \"proto3\"; package keel.v1;\n{body}");
    assert_eq!(lint(&compile(&source)), expect, "{body}");
}

#[test]
fn each_rule_is_kept_by_the_lint() {
    check("// Good.\nmessage Good {\n  // A field.\n  string name = 1;\n}", &[]);
    check("message Bare {}", &["Bare: nothing says what it is"]);
    check("// no end\nmessage Short {}", &["Short: its comment is not a sentence"]);
    check("// A.\nmessage low_case {}", &["low_case: not PascalCase"]);
    check("// A.\nmessage A {\n  string b = 1;\n}", &["A.b: nothing says what it is"]);
    check(
        "// A.\nmessage A {\n  // B.\n  string someName = 1;\n}",
        &["A.someName: not lower_snake_case"],
    );
    check(
        "// A.\nmessage A {\n  // B.\n  string b = 2;\n}",
        &["A: its numbers have a gap that is not reserved"],
    );
    check("// A.\nmessage A {\n  reserved 1;\n  // B.\n  string b = 2;\n}", &[]);
    check(
        "// A.\nmessage A {\n  oneof what {\n    // B.\n    string b = 1;\n  }\n}",
        &["A.what: nothing says what it is"],
    );
    check("// A.\nmessage A {\n  // B.\n  optional string b = 1;\n}", &[]);
    check(
        "// C.\nenum Colour {\n  // R.\n  COLOUR_RED = 0;\n}",
        &["Colour: its first value is not UNSPECIFIED"],
    );
    check(
        "// C.\nenum LongName {\n  // U.\n  LONG_NAME_UNSPECIFIED = 0;\n  // R.\n  RED = 1;\n}",
        &["RED: does not begin with its enum's name"],
    );
    check(
        "// C.\nenum C {\n  // U.\n  C_UNSPECIFIED = 0;\n  // R.\n  C_RED = 2;\n}",
        &["C_RED: its number does not follow the one before"],
    );
    check(
        "// S.\nservice S {\n  // G.\n  rpc Get(Thing) returns (Thing);\n}\n// T.\nmessage Thing {}",
        &[
            "S.Get: its request is not called after it",
            "S.Get: its response is not called after it",
        ],
    );
    let elsewhere = compile("syntax = \"proto3\"; package other;");
    assert_eq!(lint(&elsewhere), ["keel/v1/test.proto: its package is not its folder"]);
}
