//! What a client can do that knows nothing of Keel, and what one sees that follows who calls.

#![cfg(test)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use keel_proto::v1::{ReadAuditRequest, ReadAuditResponse};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, Value};
use prost_types::FileDescriptorProto;
use support::pki::Authority;
use support::{Agent, Connection, Messages, Start, end};
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

const CHECK: &str = "/grpc.health.v1.Health/Check";

/// Asks a node what it serves. Both versions of the protocol say the same in the same bytes.
async fn reflect(node: &mut Connection, version: &str, ask: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let method = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
    let answer = node.begin_with(&method, &[&request.encode_to_vec()]).await.unwrap();
    let message = Messages::of(answer).next().await.expect("an answer");
    ServerReflectionResponse::decode(message.as_slice()).unwrap().message_response.unwrap()
}

/// All files that a node says its services are made of.
async fn served(node: &mut Connection, version: &str) -> DescriptorPool {
    let listed = reflect(node, version, MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(list) = listed else { panic!("{listed:?}") };
    let mut wanted: Vec<_> = list
        .service
        .into_iter()
        .map(|service| MessageRequest::FileContainingSymbol(service.name))
        .collect();
    let mut files: BTreeMap<String, FileDescriptorProto> = BTreeMap::new();
    while let Some(ask) = wanted.pop() {
        let answer = reflect(node, version, ask).await;
        let MessageResponse::FileDescriptorResponse(found) = answer else { panic!("{answer:?}") };
        for bytes in found.file_descriptor_proto {
            let file = FileDescriptorProto::decode(bytes.as_slice()).unwrap();
            let missing = file.dependency.iter().filter(|name| !files.contains_key(*name));
            wanted.extend(missing.cloned().map(MessageRequest::FileByFilename));
            files.insert(file.name().to_owned(), file);
        }
    }
    let mut pool = DescriptorPool::new();
    pool.add_file_descriptor_protos(files.into_values()).unwrap();
    pool
}

/// What the files of the API declare: services, methods as `keel.v1.Node/GetStatus`, and messages.
fn declared() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/keel/v1");
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let mut service = String::new();
        for line in text.lines() {
            let words: Vec<_> = line.trim_start().split([' ', '(']).collect();
            match words[..] {
                ["service", name, ..] if !line.starts_with(' ') => {
                    service = format!("keel.v1.{name}");
                    names.insert(service.clone());
                }
                ["rpc", name, ..] => drop(names.insert(format!("{service}/{name}"))),
                ["message", name, ..] if !line.starts_with(' ') => {
                    names.insert(format!("keel.v1.{name}"));
                }
                _ => {}
            }
        }
    }
    names
}

#[tokio::test]
async fn reflection_tells_all_that_a_client_needs() {
    let agent = Agent::start();
    let mut node = agent.connect(None).await;
    for version in ["v1", "v1alpha"] {
        let pool = served(&mut node, version).await;
        let services = pool.services().filter(|service| service.package_name() == "keel.v1");
        let mut names: BTreeSet<_> = services
            .flat_map(|service| {
                let own = service.full_name().to_owned();
                let methods: Vec<_> =
                    service.methods().map(|method| format!("{own}/{}", method.name())).collect();
                methods.into_iter().chain([own])
            })
            .collect();
        let messages = pool.all_messages().filter(|message| {
            message.package_name() == "keel.v1" && message.parent_message().is_none()
        });
        names.extend(messages.map(|message| message.full_name().to_owned()));
        assert_eq!(names, declared(), "{version}");

        // A request that is made from the descriptors alone is understood.
        let node_service = pool.get_service_by_name("keel.v1.Node").unwrap();
        let method = node_service.methods().find(|method| method.name() == "GetUnit").unwrap();
        let mut request = DynamicMessage::new(method.input());
        request.set_field_by_name("unit", Value::String("x".repeat(300)));
        let answer = node.begin_with("/keel.v1.Node/GetUnit", &[&request.encode_to_vec()]).await;
        let said = end(answer.unwrap()).await;
        assert_eq!(said, "InvalidArgument: `unit` is 300 bytes long; it may have 256");
    }
}

#[tokio::test]
async fn a_request_is_as_long_as_it_may_be_and_no_longer() {
    const LONGEST: usize = 64 * 1024;
    const CONFIG: usize = 320 * 1024;

    let agent = Agent::start();
    for (method, longest) in [
        ("/keel.v1.Node/GetUnit", LONGEST),
        ("/keel.v1.Config/Apply", CONFIG),
        ("/keel.v1.Operation/ControlUnit", LONGEST),
        (CHECK, LONGEST),
    ] {
        let mut node = agent.connect(None).await;
        let said = match node.begin_with(method, &[&vec![0; longest + 1]]).await {
            Ok(answer) => end(answer).await,
            Err(error) => error,
        };
        match method.contains("Operation") {
            // It is not even read of who may not call.
            true => assert!(said.starts_with("PermissionDenied"), "{said}"),
            false => assert!(said.starts_with("OutOfRange"), "{said}"),
        }
    }
}

#[tokio::test]
async fn who_follows_the_audit_log_misses_nobody() {
    let ca = Authority::new("ca");
    let agent = Start::new().cluster_ca(&ca.pem).start();
    let (admin, viewer) = (ca.client(&["keel:admin"]), ca.client(&["keel:viewer"]));
    for _ in 0..3 {
        assert_eq!(agent.call(Some(&viewer), CHECK).await, "OK");
    }
    let mut reader = agent.connect(Some(&admin)).await;
    let request = ReadAuditRequest { tail: 0, follow: true };
    let answer = reader.begin_with("/keel.v1.Journal/ReadAudit", &[&request.encode_to_vec()]).await;
    let mut messages = Messages::of(answer.unwrap());
    let mut seen = Vec::new();
    let mut calls = 3;
    // The past, and what comes while it is read, in any number of messages: each record once, in its order.
    while seen.len() < 10 {
        if seen.len() >= 3 && calls < 10 {
            assert_eq!(agent.call(Some(&viewer), CHECK).await, "OK");
            calls += 1;
        }
        let message = messages.next().await.expect("it goes on");
        let batch = ReadAuditResponse::decode(message.as_slice()).unwrap();
        assert_eq!(batch.dropped, 0);
        seen.extend(batch.records);
    }
    let numbers: Vec<_> = seen.iter().map(|record| record.seq).collect();
    assert_eq!(numbers, (1..=10).collect::<Vec<_>>());
    for record in seen {
        let said = (record.method.as_str(), record.result.as_str(), record.roles.join(" "));
        assert_eq!(said, (CHECK, "OK", "viewer".to_owned()));
    }
    // The end of the past alone, and no more.
    let request = ReadAuditRequest { tail: 2, follow: false }.encode_to_vec();
    let answer = reader.begin_with("/keel.v1.Journal/ReadAudit", &[&request]).await;
    let mut messages = Messages::of(answer.unwrap());
    let batch = messages.next().await.unwrap();
    let batch = ReadAuditResponse::decode(batch.as_slice()).unwrap();
    assert_eq!(batch.records.iter().map(|record| record.seq).collect::<Vec<_>>(), [9, 10]);
    assert!(messages.next().await.is_none());
}
