# Extern declarations of include/fastsync/slot.h; no logic.


cdef extern from "fastsync/slot.h":
    object fs_slot_get(object cell)
    int fs_slot_set(object cell, object value) except -1
