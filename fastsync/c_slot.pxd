# Extern declarations of include/fastsync/slot.h; no logic.


cdef extern from "fastsync/slot.h":
    object fs_slot_get(object slot)
    int fs_slot_set(object slot, object value) except -1
