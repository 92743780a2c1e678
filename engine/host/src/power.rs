//! The power button, and what a hypervisor sends in its place when it asks a guest to shut down (`virsh shutdown`, a cloud's "stop").
//!
//! ACPI tells of it by generic netlink: family `acpi_event`, one multicast group (drivers/acpi/event.c). The `button` driver, which
//! coldplug loads, is the source; no daemon and no input device is needed.

use std::io;

use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

// include/uapi/linux/genetlink.h
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;

// drivers/acpi/event.c, include/acpi/button.h
const FAMILY: &[u8] = b"acpi_event\0";
const ACPI_GENL_ATTR_EVENT: u16 = 1;
const BUTTON_CLASS: &[u8] = b"button/power\0";
const ACPI_BUTTON_NOTIFY_STATUS: u32 = 0x80;

const NLM_F_REQUEST: u16 = 1;
/// Of a netlink message and of the generic one inside it.
const HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;

/// Listens for the power button of this machine.
pub struct PowerButton {
    socket: TokioSocket,
    family: u16,
}

impl PowerButton {
    /// Listens from now on. None where there is no ACPI.
    ///
    /// # Errors
    /// If the kernel has no generic netlink.
    pub async fn listen() -> io::Result<Option<Self>> {
        let mut socket = TokioSocket::new(NETLINK_GENERIC)?;
        socket.socket_mut().bind_auto()?;
        socket.send_to(&question(), &SocketAddr::new(0, 0)).await?;
        let (answer, _) = socket.recv_from_full().await?;
        let Some((family, group)) = read_answer(&answer) else { return Ok(None) };
        socket.socket_mut().add_membership(group)?;
        Ok(Some(Self { socket, family }))
    }

    /// Waits until it is pressed.
    ///
    /// # Errors
    /// If the socket fails.
    pub async fn pressed(&mut self) -> io::Result<()> {
        loop {
            let (message, _) = self.socket.recv_from_full().await?;
            if is_press(&message, self.family) {
                return Ok(());
            }
        }
    }
}

/// Which family is `acpi_event`?
fn question() -> Vec<u8> {
    let attribute_length = 4 + FAMILY.len();
    let length = HEADER + GENERIC_HEADER + attribute_length.next_multiple_of(4);
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_ne_bytes());
    message.extend(GENL_ID_CTRL.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence number and port: one question, one answer.
    message.extend([0; 8]);
    message.extend([CTRL_CMD_GETFAMILY, 1, 0, 0]);
    message.extend((attribute_length as u16).to_ne_bytes());
    message.extend(CTRL_ATTR_FAMILY_NAME.to_ne_bytes());
    message.extend(FAMILY);
    message.resize(length, 0);
    message
}

/// The family's number and its group's; none if it is an error (there is no such family).
fn read_answer(message: &[u8]) -> Option<(u16, u32)> {
    let attributes = body(message, GENL_ID_CTRL)?;
    let family = attribute(attributes, CTRL_ATTR_FAMILY_ID)?;
    // The groups are numbered from 1 inside their attribute; this family has one.
    let group = attribute(attribute(attributes, CTRL_ATTR_MCAST_GROUPS)?, 1)?;
    let group = attribute(group, CTRL_ATTR_MCAST_GRP_ID)?;
    Some((u16::from_ne_bytes(family.try_into().ok()?), u32::from_ne_bytes(group.try_into().ok()?)))
}

/// Whether it is the event `struct acpi_genl_event { char class[20]; char bus[15]; u32 type; u32 data; }` of a button that was pressed.
fn is_press(message: &[u8], family: u16) -> bool {
    let event =
        body(message, family).and_then(|attributes| attribute(attributes, ACPI_GENL_ATTR_EVENT));
    event.is_some_and(|event| {
        let kind = event.get(36..40).and_then(|kind| kind.try_into().ok()).map(u32::from_ne_bytes);
        event.starts_with(BUTTON_CLASS) && kind == Some(ACPI_BUTTON_NOTIFY_STATUS)
    })
}

/// The attributes of a generic netlink message of this type.
fn body(message: &[u8], kind: u16) -> Option<&[u8]> {
    let length = u32::from_ne_bytes(message.get(..4)?.try_into().ok()?) as usize;
    let found = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    (found == kind)
        .then(|| message.get(HEADER + GENERIC_HEADER..length.min(message.len())))
        .flatten()
}

/// The value of the first attribute of this type. Each is a length, a type, the value, and bytes up to a multiple of four.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        let value = attributes.get(4..length)?;
        // The two upper bits are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
        if kind & 0x3fff == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tlv(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, attributes: &[u8]) -> Vec<u8> {
        let mut bytes =
            ((HEADER + GENERIC_HEADER + attributes.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER + GENERIC_HEADER, 0);
        bytes.extend(attributes);
        bytes
    }

    fn event(class: &str, kind: u32) -> Vec<u8> {
        let mut event = class.as_bytes().to_vec();
        event.resize(36, 0);
        event.extend(kind.to_ne_bytes());
        event.extend([1, 0, 0, 0]);
        message(23, &tlv(ACPI_GENL_ATTR_EVENT, &event))
    }

    #[test]
    fn only_a_press_is_a_press() {
        let check =
            |message: &[u8], expect: bool| assert_eq!(is_press(message, 23), expect, "{message:?}");
        check(&event("button/power", 0x80), true);
        // What the button says when it wakes a machine that slept.
        check(&event("button/power", 0x02), false);
        check(&event("button/lid", 0x80), false);
        check(&event("button/powerful", 0x80), false);
        check(&message(24, &tlv(1, &[0; 44])), false);
        check(&event("button/power", 0x80)[..40], false);
        check(&[], false);
        check(&[255; 64], false);
        check(&message(23, &[0; 8]), false);
    }

    #[test]
    fn the_answer_names_family_and_group() {
        let group = [tlv(1, b"acpi_mc_group\0"), tlv(CTRL_ATTR_MCAST_GRP_ID, &5_u32.to_ne_bytes())]
            .concat();
        let groups = tlv(CTRL_ATTR_MCAST_GROUPS | 0x8000, &tlv(1, &group));
        let good = [tlv(CTRL_ATTR_FAMILY_NAME, FAMILY), tlv(CTRL_ATTR_FAMILY_ID, &[23, 0]), groups]
            .concat();
        let check =
            |message: &[u8], expect: Option<(u16, u32)>| assert_eq!(read_answer(message), expect);
        check(&message(GENL_ID_CTRL, &good), Some((23, 5)));
        check(&message(GENL_ID_CTRL, &tlv(CTRL_ATTR_FAMILY_ID, &[23, 0])), None);
        // NLMSG_ERROR: no such family.
        check(&message(2, &[0; 16]), None);
    }

    #[test]
    fn the_question_is_a_whole_message() {
        let question = question();
        assert_eq!(question.len(), 36);
        assert_eq!(question.get(..4), Some(&36_u32.to_ne_bytes()[..]));
        assert_eq!(attribute(&question[20..], CTRL_ATTR_FAMILY_NAME), Some(FAMILY));
    }
}
