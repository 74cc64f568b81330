//! Signers of fieldgate: PKCS#11 token and sealed file.
