import type { Metadata, Viewport } from "next";
import type { ReactNode } from "react";
import project from "../../package.json";
import "./page.css";

export const metadata: Metadata = { title: project.description };
export const viewport: Viewport = { colorScheme: "light dark" };

export default function Layout({ children }: { children: ReactNode }) {
  return (
    <html lang="en">
      <body>{children}</body>
    </html>
  );
}
