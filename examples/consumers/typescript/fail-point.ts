/** Of the conformance test: after_effect, before_commit. Nothing is closed, as after a kill. */
export function failPoint(name: string) {
  if (process.env.FAIL_POINT === name) {
    process.exit(137);
  }
}
