# Extern declarations of include/fastsync/box.h; no logic.


cdef extern from "fastsync/box.h":
    object fs_box_get(object box)
    int fs_box_set(object box, object value) except -1
