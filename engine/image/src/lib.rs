//! Initramfs images from a machine config.
