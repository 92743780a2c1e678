//! Who may speak at the socket, and what becomes of those who do not, or not well.

use super::*;

#[tokio::test]
async fn the_socket_is_for_root_alone() {
    let mut server = Server::start(Limits::default());
    let mode = std::fs::metadata(server.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // Should the file's mode ever be wrong, the kernel's word on who calls still counts.
    open_to_all(&server);
    let connect_and_read =
        "my $s = IO::Socket::UNIX->new($ARGV[0]) or die; print length(<$s> // '')";
    let output = tokio::process::Command::new("/usr/bin/perl")
        .args(["-MIO::Socket::UNIX", "-e", connect_and_read])
        .arg(server.socket())
        .uid(65534)
        .output()
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0", "{output:?}");
    assert_eq!(server.failure().await, "user 65534 may not connect");
    server.connect().await.unwrap().status().await.unwrap();
}

fn open_to_all(server: &Server) {
    let all = |path: &Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap()
    };
    all(server.folder.path());
    all(&server.socket());
}

#[tokio::test]
async fn no_more_connections_than_there_is_room_for() {
    let mut server = Server::start(Limits { connections: 2, ..Limits::default() });
    let first = server.connect().await.unwrap();
    let _second = server.connect().await.unwrap();
    let error = server.connect().await.unwrap_err();
    assert!(matches!(error.kind, ControlErrorKind::NoRoom), "{error}");
    assert_eq!(server.failure().await, "no room, 2 connections are open");
    // A place that is given back is given out again, as soon as the server has seen the other end close.
    drop(first);
    while server.connect().await.is_err() {
        server.failure().await;
    }
}

#[tokio::test]
async fn peers_that_do_not_speak_or_listen_are_dropped() {
    let mut server = Server::start(impatient());
    let mut silent = server.raw().await;
    assert_eq!(server.failure().await, "it was given up while waiting for its hello");
    assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);

    // Between two requests one may be silent: the connection ends after a while, and nobody hears of it.
    let mut idle = server.raw().await;
    idle.write_all(&hello()).await.unwrap();
    assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);

    let mut half = server.raw().await;
    half.write_all(&hello()).await.unwrap();
    half.write_all(b"\0\0\0\x09half").await.unwrap();
    let rest = "it was given up while waiting for the rest of a request";
    assert_eq!(server.failure().await, rest, "and not the idle one");
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_dropped_and_costs_nobody_else() {
    let mut server = Server::with_units(impatient(), 20_000, &"x".repeat(200));
    let mut deaf = server.raw().await;
    deaf.write_all(&hello()).await.unwrap();
    deaf.write_all(&frame(&[1])).await.unwrap();
    let mut other = server.connect().await.unwrap();
    assert_eq!(
        other.status().await.unwrap(),
        status(),
        "while the first one's answer waits for it"
    );
    assert_eq!(server.failure().await, "it was given up while writing to it");
}

#[tokio::test]
async fn broken_speech_ends_that_connection_alone() {
    let cases: [(&[&[u8]], &str); 7] = [
        (
            &[b"GET / HTTP/1.1\r\n\r\n"],
            "cannot read a frame: 1195725856 bytes are more than the 1048576 allowed",
        ),
        (&[&frame(b"ssh!\x01\x00")], "it does not speak this protocol"),
        (&[&hello_of_version(9)], "it speaks version 9, not 5"),
        (
            &[b"\xff\xff\xff\xff"],
            "cannot read a frame: 4294967295 bytes are more than the 1048576 allowed",
        ),
        (&[&hello(), &frame(&[99])], "cannot read a frame: malformed message"),
        (&[&hello(), &frame(&[0, 0])], "cannot read a frame: 1 bytes follow the message"),
        (&[&hello(), &frame(&[2, 1, 1]), &frame(&[0])], "it spoke out of turn"),
    ];
    let mut server = Server::start(Limits::default());
    for (frames, expect) in cases {
        let mut stream = server.raw().await;
        stream.write_all(&frames.concat()).await.unwrap();
        assert_eq!(server.failure().await, expect);
    }
    let mut cut = server.raw().await;
    cut.write_all(&[&hello(), b"\0\0\0\x09cut".as_slice()].concat()).await.unwrap();
    drop(cut);
    assert_eq!(server.failure().await, "cannot read a frame: the stream ended after 3 of 9 bytes");
    server.connect().await.unwrap().status().await.unwrap();
}

#[tokio::test]
async fn a_client_names_what_is_wrong_with_the_other_side() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("sock");
    let error = Control::connect(&path).await.unwrap_err();
    assert!(
        matches!(error.kind, ControlErrorKind::Connect(ref source) if source.kind() == io::ErrorKind::NotFound)
    );

    let listener = keel_control::bind(&path).unwrap();
    let greeting = frame(b"keel\x07\x0aother 0.9\x00\x01");
    let answers: [(&[u8], &str); 4] = [
        (b"", "init closed the connection"),
        (&frame(b"ssh!\x01\x00\x01"), "the other side does not speak this protocol"),
        (b"\0\0\0\x02\0", "cannot read a frame: the stream ended after 1 of 2 bytes"),
        (&greeting, "init is other 0.9\0 and speaks version 7, not 5"),
    ];
    for (answer, expect) in answers {
        let (connected, ()) = tokio::join!(Control::connect(&path), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(answer).await.unwrap();
        });
        assert_eq!(connected.unwrap_err().kind.to_string(), expect);
    }
}

#[tokio::test]
async fn binding_replaces_a_socket_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("control.sock");
    drop(keel_control::bind(&path).unwrap());
    assert!(path.exists(), "a socket outlives its process");
    drop(keel_control::bind(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "someone's file").unwrap();
    assert_eq!(keel_control::bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    assert_eq!(std::fs::read(&path).unwrap(), b"someone's file");
}
