//! Unit files and machine config: text in, validated types or a full report of errors out.
