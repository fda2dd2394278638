/** The main job's guest, which ends itself in the middle of whatever it does when this channel says so. */
new BroadcastChannel("mortal-guest").addEventListener("message", () => {
  close();
});

await import("../../examples/replay/guest.js");
