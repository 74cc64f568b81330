//! Readings, devices and the adapter interface of fieldgate.
