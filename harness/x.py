import guest, sys, test
r=guest.boot("for t in %s; do /selftests/proc/$t || echo FAILED $t; done" % " ".join(sys.argv[1:]), name="x", timeout=500, output=sys.stdout.buffer)
print(r.reports())
