use std::cell::RefCell;

use super::*;

#[test]
fn a_list_is_given_as_the_standard_has_it() {
    let entries: [CK_MECHANISM_TYPE; 3] = [7, 8, 9];
    let mut buffer = [0; 3];
    let mut count = 99;
    let give = |list, count: &mut CK_ULONG| {
        // SAFETY: the list is null or has three entries, and the counts passed are at most that or come with null.
        unsafe { give_list(&entries, list, &raw mut *count) }
    };
    assert_eq!((give(std::ptr::null_mut(), &mut count), count), (CKR_OK, 3));
    count = 2;
    assert_eq!(
        (give(buffer.as_mut_ptr(), &mut count), count),
        (CKR_BUFFER_TOO_SMALL, 3)
    );
    assert_eq!(buffer, [0; 3]);
    assert_eq!((give(buffer.as_mut_ptr(), &mut count), count), (CKR_OK, 3));
    assert_eq!(buffer, entries);
    // SAFETY: null is allowed.
    let value = unsafe { give_list(&entries, std::ptr::null_mut(), std::ptr::null_mut()) };
    assert_eq!(value, CKR_ARGUMENTS_BAD);
}

#[test]
fn a_list_is_read_as_the_standard_has_it() {
    let calls = RefCell::new(Vec::new());
    let read = read_list::<CK_SLOT_ID>(|list, count| {
        calls.borrow_mut().push(list.is_null());
        // SAFETY: `read_list` passes a buffer of the length it was told.
        unsafe { give_list(&[5, 6], list, count) }
    });
    assert_eq!(read, Ok(vec![5, 6]));
    assert_eq!(calls.into_inner(), [true, false]);
    assert_eq!(
        read_list::<CK_SLOT_ID>(|_, _| CKR_DEVICE_ERROR),
        Err(CKR_DEVICE_ERROR)
    );
}

#[test]
fn without_a_real_module_there_is_no_list() {
    let mut list: *mut CK_FUNCTION_LIST = std::ptr::null_mut();
    // SAFETY: `list` can be written.
    let value = unsafe { crate::C_GetFunctionList(&raw mut list) };
    assert_eq!(value, CKR_GENERAL_ERROR);
    assert!(list.is_null());
    // SAFETY: null is allowed.
    let value = unsafe { crate::C_GetFunctionList(std::ptr::null_mut()) };
    assert_eq!(value, CKR_ARGUMENTS_BAD);
}
