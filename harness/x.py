import bench_writers as b, csv, sys, guest
from pathlib import Path
rows,t=b.measure(guest.CACHE/"build/bench/arch/x86/boot/bzImage","writers-bench -r 1 -m 300","trial",name="trial",timeout=900,output=b.Lines(type("P",(),{})()))
f=b.measured(rows); b.show(f)
for w in b.requirements(f): print(w)
