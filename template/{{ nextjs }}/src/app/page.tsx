import { connection } from "next/server";
import { Studio } from "@/components/studio.tsx";
import project from "../../package.json";

export default async function Page() {
  await connection(); // each answer has a nonce of its own (src/proxy.ts)
  return (
    <>
      <Studio name={project.description} />
      <noscript>This page needs JavaScript.</noscript>
    </>
  );
}
