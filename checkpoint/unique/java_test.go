package unique_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"torpor/internal/kerneltest"
)

const javaService = `
import java.io.*;
import java.security.*;
import java.util.*;
import java.util.concurrent.*;

public class Service {
  static final Random own = new Random(), seeded = new Random(42);
  static final SplittableRandom split = new SplittableRandom();
  static final Map<String, SecureRandom> secure = new LinkedHashMap<>();
  static final ExecutorService pool = Executors.newSingleThreadExecutor();
  static class Mine extends Random { int more = 1; }
  static final Random mine = new Mine();

  static String show() throws Exception {
    StringBuilder b = new StringBuilder();
    b.append("math=" + Math.random() + " own=" + own.nextLong() + " seeded=" + seeded.nextLong() + " mine=" + mine.nextLong());
    b.append(" gauss=" + own.nextGaussian() + " local=" + ThreadLocalRandom.current().nextLong());
    b.append(" pool=" + pool.submit(() -> ThreadLocalRandom.current().nextLong()).get());
    b.append(" newrandom=" + new SplittableRandom().nextLong() + " split=" + split.nextLong());
    long[] n = new long[1];
    Thread thread = new Thread(() -> n[0] = ThreadLocalRandom.current().nextLong());
    thread.start();
    thread.join();
    b.append(" newthread=" + n[0]);
    for (Map.Entry<String, SecureRandom> e : secure.entrySet()) b.append(" " + e.getKey() + "=" + e.getValue().nextLong());
    b.append(" freshuuid=" + UUID.randomUUID() + " freshdefault=" + new SecureRandom().nextLong());
    return b.toString();
  }

  static SecureRandom drbg(String mechanism) throws Exception {
    Security.setProperty("securerandom.drbg.config", mechanism);
    return SecureRandom.getInstance("DRBG");
  }

  public static void main(String[] args) throws Exception {
    secure.put("hashdrbg", drbg("Hash_DRBG"));
    secure.put("hmacdrbg", drbg("HMAC_DRBG"));
    secure.put("ctrdrbg", drbg("CTR_DRBG"));
    secure.put("sha1prng", SecureRandom.getInstance("SHA1PRNG"));
    for (int i = 0; i < 2001; i++) show();
    BufferedReader in = new BufferedReader(new InputStreamReader(new FileInputStream(args[0])));
    System.out.println("ready");
    while (in.readLine() != null) {
      System.out.println(show());
      System.gc();
    }
  }
}
`

// compileJava returns the directory with the service's classes.
func compileJava(t *testing.T) string {
	t.Helper()
	kerneltest.Require(t, kerneltest.Program("javac"))
	source := writeFile(t, "Service.java", javaService)
	if out, err := exec.Command("javac", source).CombinedOutput(); err != nil {
		t.Fatalf("javac: %v\n%s", err, out)
	}
	return filepath.Dir(source)
}

func TestJava(t *testing.T) {
	classes := compileJava(t)
	for _, collector := range []string{"G1", "Serial", "Parallel"} {
		t.Run(collector, func(t *testing.T) {
			startService(t, "java", "-XX:-UsePerfData", "-XX:+Use"+collector+"GC", "-cp", classes, "Service").checkFutures()
		})
	}
}

// TestJavaUnknown checks that a heap that can not be read is named.
func TestJavaUnknown(t *testing.T) {
	s := startService(t, "java", "-XX:-UsePerfData", "-XX:-UseCompressedOops", "-cp", compileJava(t), "Service")
	s.sleep()
	if got := strings.Join(s.specs[0].Shared, "; "); !strings.Contains(got, "java's Random, Math.random") {
		t.Errorf("shared is %q", got)
	}
}
