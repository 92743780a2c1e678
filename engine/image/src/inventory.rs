//! A machine's inventory: the hardware that a machine config selects from, as `osctl inventory` records it of a running node or
//! as a person writes it. docs/inventory.md describes the format; its keys are an interface.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use keel_unit::keys::Text;
use keel_unit::kinds::Bus;
use keel_unit::select::{DiskFacts, EntryFacts, LinkFacts, TableFacts};
use keel_unit::value::{ByteSize, Guid, MacAddr};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// The version of the format.
pub const INVENTORY_SCHEMA: u32 = 1;

/// What a machine is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Inventory {
    /// Where the JSON Schema of this format is, for editors; nothing else reads it.
    #[serde(default, rename = "$schema", skip_serializing_if = "Option::is_none")]
    pub for_editors: Option<String>,
    /// Version of this format; always 1.
    #[schemars(range(min = 1, max = 1))]
    pub schema: u32,
    /// The machine as a whole.
    #[serde(default)]
    pub machine: Machine,
    /// Its network links; the loopback link is in every machine and is left out.
    #[serde(default)]
    pub links: Vec<Link>,
    /// Its disks.
    #[serde(default)]
    pub disks: Vec<Disk>,
    /// How many more links and disks there are than are listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u32,
}

/// The machine as a whole. What is not known is left out, and not checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Machine {
    /// Its architecture as `uname -m` prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// The release of the kernel that it ran when it was asked, as `uname -r` prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Memory: bytes, or a text such as `"4GiB"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
}

/// A network link.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Link {
    /// The kernel's name for it.
    pub name: String,
    /// Its hardware address; absent for what is no Ethernet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Whether it has a carrier; absent when that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier: Option<bool>,
    /// What software made it (`veth`, `bridge`, …); absent for hardware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Whether it is a port of a bridge or a bond.
    #[serde(default, skip_serializing_if = "is_false")]
    pub port: bool,
    /// The drivers that it takes, nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drivers: Vec<Driver>,
}

/// A disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Disk {
    /// Its node, such as `/dev/vda`.
    pub path: PathBuf,
    /// The names that /dev/disk/by-id has for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_id: Vec<String>,
    /// Serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Size: bytes, or a text such as `"100GiB"`.
    pub size: Size,
    /// How it is attached: a word of the machine config's `bus`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bus: Option<BusName>,
    /// Whether its medium can be taken out.
    #[serde(default, skip_serializing_if = "is_false")]
    pub removable: bool,
    /// Whether it cannot be written.
    #[serde(default, skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// What is on it, by the marks of formats; empty for a blank disk, absent when that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Vec<String>>,
    /// Why it could not be looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
    /// Its partitions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<Partition>,
    /// What is behind the image of Keel that it carries; absent on a disk that carries none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Behind>,
    /// The drivers that it takes, nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drivers: Vec<Driver>,
}

/// The space behind an image of Keel, which takes the data partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Behind {
    /// How large a partition can be there: bytes, or a text such as `"100GiB"`; absent when that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<Size>,
    /// What is there, by the marks of formats; empty where it is blank, absent when that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Vec<String>>,
    /// Why no partition can be added to the image's table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfit: Option<String>,
}

/// A GPT partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Partition {
    /// Its number.
    pub number: u32,
    /// Its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// Its type.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_guid: Option<TypeGuid>,
    /// Size: bytes, or a text such as `"100GiB"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// What is on it, by the marks of formats; empty for a blank one, absent when that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Vec<String>>,
}

/// A driver between a device and the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Driver {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The module alias of the device that it drives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modalias: Option<String>,
    /// Whether it was built into the kernel that ran there.
    #[serde(default, skip_serializing_if = "is_false")]
    pub built_in: bool,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// Bytes, in JSON a number or a text with a unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Size(pub u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Size;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "a number of bytes, or {}", ByteSize::EXPECTED)
            }

            fn visit_u64<E>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Size, E> {
                ByteSize::parse(text).map(|size| Size(size.0)).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "integer", "minimum": 0 },
            { "type": "string", "pattern": ByteSize::PATTERN, "examples": [ByteSize::EXAMPLE] },
        ]})
    }
}

/// A type of the unit language, in JSON as it is written there.
macro_rules! as_text {
    ($($(#[doc = $doc:literal])* $name:ident($inner:ty) = $parse:expr, $show:expr, $schema:expr;)*) => {$(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name(pub $inner);

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let show: fn(&$inner) -> String = $show;
                serializer.serialize_str(&show(&self.0))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                let parse: fn(&str) -> Result<$inner, String> = $parse;
                parse(&text).map($name).map_err(|why| serde::de::Error::custom(format!("`{text}`: {why}")))
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).to_lowercase().into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    )*};
}

as_text! {
    /// A hardware address.
    Mac(MacAddr) = MacAddr::parse, MacAddr::to_string,
        json_schema!({ "type": "string", "pattern": MacAddr::PATTERN, "examples": [MacAddr::EXAMPLE] });
    /// The type of a partition.
    TypeGuid(Guid) = Guid::parse, Guid::to_string,
        json_schema!({ "type": "string", "pattern": Guid::PATTERN, "examples": [Guid::EXAMPLE] });
    /// How a disk is attached.
    BusName(Bus) = bus, Bus::to_string,
        json_schema!({ "enum": Bus::ALL.iter().map(|bus| bus.as_str()).collect::<Vec<_>>() });
}

fn bus(word: &str) -> Result<Bus, String> {
    let all = || Bus::ALL.iter().map(|bus| bus.as_str()).collect::<Vec<_>>().join(", ");
    Bus::from_word(word).ok_or_else(|| format!("no bus of the machine config ({})", all()))
}

/// A text that is no inventory.
#[derive(Debug, Error)]
pub enum InventoryError {
    /// It is no JSON of this form; the source says what and where.
    #[error("it is no inventory")]
    Form(#[source] serde_json::Error),
    /// It is of another version.
    #[error("its schema is {0}, and this version reads schema {INVENTORY_SCHEMA} only")]
    Schema(u32),
    /// A name stands there twice.
    #[error("{0} stands there twice")]
    Twice(String),
}

impl Inventory {
    /// The JSON Schema of the format, for editors: draft 7, as those of unit files and machine configs.
    #[must_use]
    pub fn json_schema() -> serde_json::Value {
        let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<Self>();
        schema.insert("title".to_owned(), "Inventory of a machine".into());
        schema.to_value()
    }

    /// Reads an inventory.
    ///
    /// # Errors
    /// See [`InventoryError`].
    pub fn parse(text: &str) -> Result<Self, InventoryError> {
        let inventory: Self = serde_json::from_str(text).map_err(InventoryError::Form)?;
        if inventory.schema != INVENTORY_SCHEMA {
            return Err(InventoryError::Schema(inventory.schema));
        }
        let links = inventory.links.iter().map(|link| format!("link {}", link.name));
        let disks = inventory.disks.iter().map(|disk| format!("disk {}", disk.path.display()));
        let mut names: Vec<String> = links.chain(disks).collect();
        names.sort();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(InventoryError::Twice(pair[0].clone())),
            None => Ok(inventory),
        }
    }
}

impl DiskFacts for Disk {
    fn path(&self) -> &Path {
        &self.path
    }

    fn ids(&self) -> Vec<String> {
        self.by_id.clone()
    }

    fn serial(&self) -> Option<&str> {
        self.serial.as_deref()
    }

    fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    fn size(&self) -> u64 {
        self.size.0
    }

    fn bus(&self) -> Option<Bus> {
        self.bus.map(|bus| bus.0)
    }
}

impl TableFacts for Disk {
    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn entries(&self) -> Vec<EntryFacts<'_>> {
        let entries = self.partitions.iter().map(|partition| EntryFacts {
            number: partition.number,
            label: &partition.label,
            type_guid: partition.type_guid.map(|guid| guid.0),
        });
        entries.collect()
    }
}

impl LinkFacts for Link {
    fn name(&self) -> &str {
        &self.name
    }

    fn mac(&self) -> Option<[u8; 6]> {
        self.mac.map(|mac| mac.0.0)
    }

    fn is_loopback(&self) -> bool {
        self.name == "lo"
    }

    fn kind(&self) -> Option<&str> {
        self.kind.as_deref()
    }

    fn is_port(&self) -> bool {
        self.port
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::chain;

    #[test]
    fn what_is_written_is_read_back() {
        let text = r#"{
  "schema": 1,
  "machine": {
    "architecture": "x86_64",
    "memory": 4294967296
  },
  "links": [
    {
      "name": "eth0",
      "mac": "52:54:00:12:34:56",
      "carrier": true
    }
  ],
  "disks": [
    {
      "path": "/dev/vda",
      "by-id": [
        "virtio-keel-data"
      ],
      "size": 10737418240,
      "bus": "virtio",
      "content": [],
      "partitions": [
        {
          "number": 1,
          "label": "keel-data",
          "type": "7B1B6D1B-8E0A-4F5C-9C37-4B65656C4441"
        }
      ],
      "drivers": [
        {
          "name": "virtio_blk",
          "modalias": "virtio:d00000002v00001AF4"
        }
      ]
    }
  ]
}"#;
        let inventory = Inventory::parse(text).unwrap();
        assert_eq!(serde_json::to_string_pretty(&inventory).unwrap(), text);
    }

    #[test]
    fn a_person_may_write_units_and_leave_things_out() {
        let text = r#"{"schema": 1, "machine": {"memory": "4GiB"}, "disks": [{"path": "/dev/sda", "size": "1TiB"}]}"#;
        let inventory = Inventory::parse(text).unwrap();
        assert_eq!(inventory.machine.memory, Some(Size(4 << 30)));
        assert_eq!(inventory.disks[0].size, Size(1 << 40));
        assert_eq!(inventory.disks[0].content, None);
    }

    #[test]
    fn slips_are_named() {
        let check = |text: &str, expect: &str| {
            let said = chain(&Inventory::parse(text).unwrap_err());
            assert!(said.contains(expect), "{said}\ndoes not say\n{expect}");
        };
        check("", "it is no inventory");
        check("{}", "missing field `schema`");
        check(r#"{"schema": 2}"#, "its schema is 2, and this version reads schema 1 only");
        check(r#"{"schema": 1, "disk": []}"#, "unknown field `disk`");
        let disk =
            |rest: &str| format!(r#"{{"schema": 1, "disks": [{{"path": "/dev/a"{rest}}}]}}"#);
        check(&disk(""), "missing field `size`");
        check(&disk(r#", "size": "1TB""#), "`TB` is ambiguous");
        check(&disk(r#", "size": 1, "bus": "pci""#), "`pci`: no bus of the machine config (virtio");
        let link = r#"{"schema": 1, "links": [{"name": "e", "mac": "52"}]}"#;
        check(link, "`52`: not six pairs of hexadecimal digits");
        let twice = r#"{"schema": 1, "links": [{"name": "e"}, {"name": "e"}]}"#;
        check(twice, "link e stands there twice");
    }
}
