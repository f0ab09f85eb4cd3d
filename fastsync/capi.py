"""The functions of <fastsync/fastsync.h>, which looks for `fastsync.capi.table`."""

from fastsync.objects._c_table import table as table
